//! The options of sbatch: which there are, and how a line of them is read.
//!
//! Lines are read as getopt_long reads them: grouped short options, values
//! attached or apart, long names cut short where they stay unique.

use super::refuse;
use super::table::{KNOWN, Known, Takes};
use crate::problem::Problem;

/// Where an option was given. Later ones win.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Source {
    /// In this line of the script, counted from 1.
    Script(usize),
    /// As a variable.
    Environment,
    /// Behind `sbatch`.
    CommandLine,
}
impl Source {
    /// The order in which one overrules another.
    #[must_use]
    pub fn rank(self) -> u8 {
        match self {
            Self::Script(_) => 0,
            Self::Environment => 1,
            Self::CommandLine => 2,
        }
    }

    /// A name as it stands there: `line 3: --time`.
    #[must_use]
    pub fn name(self, name: &str) -> String {
        match self {
            Self::Script(line) => format!("line {line}: {name}"),
            Self::Environment | Self::CommandLine => name.to_owned(),
        }
    }
}

/// One option as it was given.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Given {
    /// Which.
    pub option: &'static Known,
    /// Empty where it has none.
    pub value: String,
    /// Where.
    pub source: Source,
}
impl Given {
    /// What a person wrote it as.
    #[must_use]
    pub fn field(&self) -> String {
        match self.source {
            Source::Environment => self.option.variable.to_owned(),
            source => source.name(&format!("--{}", self.option.long)),
        }
    }
}

/// What a line of options came to.
#[derive(Debug, Default)]
pub struct Line {
    /// In the order written.
    pub given: Vec<Given>,
    /// From the first word on that is no option.
    pub rest: Vec<String>,
    /// Names that sbatch does not have.
    pub unknown: Vec<String>,
}

/// The option of a long name, or of one cut short that fits no other.
pub fn find(name: &str) -> Result<&'static Known, Vec<&'static str>> {
    if let Some(exact) = KNOWN.iter().find(|option| option.long == name) {
        return Ok(exact);
    }
    let begins = |option: &&'static Known| !name.is_empty() && option.long.starts_with(name);
    let fits: Vec<&'static Known> = KNOWN.iter().filter(begins).collect();
    match fits.as_slice() {
        [only] => Ok(only),
        _ => Err(fits.iter().map(|option| option.long).collect()),
    }
}

/// Reads words up to the first that is no option. A name that sbatch does not
/// have is refused on the command line, where a value cannot be told from a
/// script, and kept by name elsewhere.
pub fn read(words: &[String], source: Source) -> Result<Line, Problem> {
    let mut line = Line::default();
    let mut words = words.iter();
    while let Some(word) = words.next() {
        if word == "--" {
            line.rest = words.cloned().collect();
            break;
        }
        if let Some(long) = word.strip_prefix("--") {
            long_option(long, source, &mut words, &mut line)?;
        } else if let Some(letters) = word.strip_prefix('-').filter(|letters| !letters.is_empty()) {
            short_options(letters, source, &mut words, &mut line)?;
        } else {
            line.rest = std::iter::once(word).chain(words).cloned().collect();
            break;
        }
    }
    Ok(line)
}

fn long_option(
    word: &str,
    source: Source,
    words: &mut std::slice::Iter<'_, String>,
    line: &mut Line,
) -> Result<(), Problem> {
    let (name, attached) = match word.split_once('=') {
        Some((name, value)) => (name, Some(value.to_owned())),
        None => (word, None),
    };
    let option = match find(name) {
        Ok(option) => option,
        Err(fits) => return unknown(&format!("--{name}"), &fits, source, attached.is_none(), words, line),
    };
    let field = source.name(&format!("--{}", option.long));
    let value = match (option.takes, attached) {
        (Takes::Nothing, Some(value)) => {
            return Err(refuse(&field, &value, "has no value", "write it without ="));
        }
        (Takes::Value, None) => words.next().cloned().ok_or_else(|| lacks_value(&field))?,
        (_, attached) => attached.unwrap_or_default(),
    };
    line.given.push(Given { option, value, source });
    Ok(())
}

fn short_options(
    letters: &str,
    source: Source,
    words: &mut std::slice::Iter<'_, String>,
    line: &mut Line,
) -> Result<(), Problem> {
    let mut rest = letters;
    while let Some(letter) = rest.chars().next() {
        rest = &rest[letter.len_utf8()..];
        let Some(option) = KNOWN.iter().find(|option| option.short == Some(letter)) else {
            return unknown(&format!("-{letter}"), &[], source, rest.is_empty(), words, line);
        };
        let value = match option.takes {
            Takes::Nothing => String::new(),
            Takes::Perhaps => std::mem::take(&mut rest).to_owned(),
            Takes::Value if !rest.is_empty() => {
                // getopt takes `-n=4` as the value `=4`, which nobody means.
                std::mem::take(&mut rest).trim_start_matches('=').to_owned()
            }
            Takes::Value => {
                let field = source.name(&format!("-{letter}"));
                words.next().cloned().ok_or_else(|| lacks_value(&field))?
            }
        };
        line.given.push(Given { option, value, source });
    }
    Ok(())
}

fn lacks_value(field: &str) -> Problem {
    refuse(field, "", "needs a value", "give one, as --name=value")
}

fn unknown(
    name: &str,
    fits: &[&str],
    source: Source,
    apart: bool,
    words: &mut std::slice::Iter<'_, String>,
    line: &mut Line,
) -> Result<(), Problem> {
    if source == Source::CommandLine || !fits.is_empty() {
        let (reason, remedy) = if fits.is_empty() {
            ("sbatch has no such option".to_owned(), "`drumline sbatch --help` lists them".to_owned())
        } else {
            let fits: Vec<String> = fits.iter().map(|name| format!("--{name}")).collect();
            ("fits several options".to_owned(), format!("write one of {} in full", fits.join(", ")))
        };
        return Err(refuse(&source.name(name), "", &reason, &remedy));
    }
    line.unknown.push(name.to_owned());
    // What follows may be its value: an option it is not.
    if apart && words.as_slice().first().is_some_and(|next| !next.starts_with('-')) {
        words.next();
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn split(line: &str) -> Vec<String> {
        line.split_whitespace().map(str::to_owned).collect()
    }

    fn shown(line: &str) -> String {
        let line = read(&split(line), Source::CommandLine).unwrap();
        let given: Vec<String> =
            line.given.iter().map(|given| format!("{}={}", given.option.long, given.value)).collect();
        format!("{} | {}", given.join(" "), line.rest.join(" "))
    }

    #[test]
    fn lines_are_read_as_getopt_reads_them() {
        assert_eq!(shown("-n 4 -c2 --time=10 job.sh -n 9"), "ntasks=4 cpus-per-task=2 time=10 | job.sh -n 9");
        assert_eq!(shown("-QWn4 --time 5"), "quiet= wait= ntasks=4 time=5 | ");
        assert_eq!(shown("--job=x --parsable -- -odd"), "job-name=x parsable= | -odd");
        assert_eq!(shown("--exclusive job.sh"), "exclusive= | job.sh");
        assert_eq!(shown("--exclusive=user -k -n=2 -"), "exclusive=user no-kill= ntasks=2 | -");
        assert_eq!(shown("--export=A=b --wrap= "), "export=A=b wrap= | ");
    }

    #[test]
    fn slips_are_named() {
        let refusal = |line: &str| read(&split(line), Source::CommandLine).unwrap_err().to_string();
        assert_eq!(
            refusal("--nosuch=1"),
            "--nosuch: sbatch has no such option; `drumline sbatch --help` lists them"
        );
        assert_eq!(refusal("-nfoo -Z"), "-Z: sbatch has no such option; `drumline sbatch --help` lists them");
        assert_eq!(refusal("--time"), "--time: needs a value; give one, as --name=value");
        assert_eq!(refusal("-n"), "-n: needs a value; give one, as --name=value");
        assert_eq!(refusal("--wait=3"), "--wait = 3: has no value; write it without =");
        assert_eq!(
            refusal("--mail=x"),
            "--mail: fits several options; write one of --mail-type, --mail-user in full"
        );
        let line = read(&split("--site-thing 7 -Z8 --nosuch=1 -n 2"), Source::Script(3)).unwrap();
        assert_eq!((line.unknown.join(" "), line.given.len()), ("--site-thing -Z --nosuch".to_owned(), 1));
    }
}
