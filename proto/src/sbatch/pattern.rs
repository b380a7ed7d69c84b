//! Names of output files: `%j`, `%A_%a`, `%x` and their kin.
//!
//! They are filled in where the task runs, since only there all is known.

/// What a task is called.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Names {
    /// The job's number.
    pub job: String,
    /// The task's index, where the job is an array.
    pub index: Option<u64>,
    /// The job's name.
    pub name: String,
    /// Who submitted it.
    pub user: String,
    /// The node, without its domain.
    pub node: String,
}

impl Names {
    /// What SLURM_JOB_ID and `%j` say. Slurm gives each task of an array a
    /// number of its own; here it is the array's, with the index behind it.
    #[must_use]
    pub fn job_id(&self) -> String {
        match self.index {
            Some(index) => format!("{}_{index}", self.job),
            None => self.job.clone(),
        }
    }
}

/// Widths above this are cut to it, as Slurm does.
const WIDTH_MAX: usize = 10;

/// Fills a pattern. A backslash anywhere turns filling off and is dropped, as
/// Slurm has it; a letter that means nothing stays as it is.
#[must_use]
pub fn fill(pattern: &str, names: &Names) -> String {
    if pattern.contains('\\') {
        return pattern.replace('\\', "");
    }
    let mut filled = String::with_capacity(pattern.len() + 16);
    let mut rest = pattern;
    while let Some(at) = rest.find('%') {
        filled.push_str(&rest[..at]);
        let code = &rest[at + 1..];
        let digits = code.bytes().take_while(u8::is_ascii_digit).count();
        let width = code[..digits].parse::<usize>().unwrap_or(if digits > 0 { WIDTH_MAX } else { 0 });
        let letter = code[digits..].chars().next();
        let index = names.index.unwrap_or(0);
        let value = match letter {
            Some('%') => Some("%".to_owned()),
            Some('j' | 'J') => Some(names.job_id()),
            Some('A') => Some(names.job.clone()),
            Some('a') => Some(index.to_string()),
            Some('b') => Some((index % 10).to_string()),
            Some('x') => Some(names.name.replace('/', "_")),
            Some('u') => Some(names.user.clone()),
            Some('N') => Some(names.node.clone()),
            Some('n' | 't') => Some("0".to_owned()),
            Some('s') => Some("batch".to_owned()),
            _ => None,
        };
        let read = at + 1 + digits + letter.map_or(0, char::len_utf8);
        match value {
            Some(value) => {
                // Only numbers are filled up with zeros.
                let is_number = value.bytes().all(|b| b.is_ascii_digit());
                let width = if is_number { width.min(WIDTH_MAX) } else { 0 };
                filled.push_str(&format!("{value:0>width$}"));
            }
            None => filled.push_str(&rest[at..read]),
        }
        rest = &rest[read..];
    }
    filled.push_str(rest);
    filled
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn names(index: Option<u64>) -> Names {
        Names { job: "17".into(), index, name: "fit/a".into(), user: "ada".into(), node: "n1".into() }
    }

    #[test]
    fn patterns_are_filled() {
        for (pattern, alone, element) in [
            ("slurm-%j.out", "slurm-17.out", "slurm-17_3.out"),
            ("slurm-%A_%a.out", "slurm-17_0.out", "slurm-17_3.out"),
            ("%x.%4A.%03a%%", "fit_a.0017.000%", "fit_a.0017.003%"),
            ("%u@%N/%5j", "ada@n1/00017", "ada@n1/17_3"),
            ("%99a %b %q %", "0000000000 0 %q %", "0000000003 3 %q %"),
            ("lit\\%j", "lit%j", "lit%j"),
            ("%é%", "%é%", "%é%"),
        ] {
            assert_eq!(fill(pattern, &names(None)), alone, "{pattern}");
            assert_eq!(fill(pattern, &names(Some(3))), element, "{pattern}");
        }
    }

    proptest! {
        #[test]
        fn no_pattern_breaks_it(pattern in "[%a-z0-9\\\\é/]{0,16}") {
            let filled = fill(&pattern, &names(Some(3)));
            if !pattern.contains(['%', '\\']) {
                prop_assert_eq!(filled, pattern);
            }
        }
    }
}
