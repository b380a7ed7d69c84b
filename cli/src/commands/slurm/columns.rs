//! Formats of Slurm's lists: `%[.][WIDTH]CODE` and the text between.
//!
//! A field with a width is cut to it and filled up to it, on the left where a
//! dot stands before the width.

use crate::failure::Failure;

/// One piece of a format.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Part {
    Text(String),
    Field { code: char, width: Option<usize>, right: bool },
}

/// A format that was read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Columns(Vec<Part>);

/// Widths above this help nobody.
const WIDTH_MAX: usize = 1000;

impl Columns {
    /// Reads a format; `known` are the codes there are.
    pub fn read(format: &str, known: &str) -> Result<Self, Failure> {
        let mut parts = Vec::new();
        let mut text = String::new();
        let mut chars = format.chars().peekable();
        while let Some(c) = chars.next() {
            if c != '%' {
                text.push(c);
                continue;
            }
            let right = chars.next_if_eq(&'.').is_some();
            let mut width = None;
            while let Some(digit) = chars.peek().and_then(|c| c.to_digit(10)) {
                chars.next();
                width = Some((width.unwrap_or(0) * 10 + digit as usize).min(WIDTH_MAX));
            }
            let code = chars.next().unwrap_or('%');
            if code == '%' {
                text.push('%');
                continue;
            }
            if !known.contains(code) {
                let remedy = format!("use {known} (see --help)");
                return Err(Failure::wrong_use(
                    "--format",
                    format,
                    &format!("%{code} is not covered"),
                    &remedy,
                ));
            }
            if !text.is_empty() {
                parts.push(Part::Text(std::mem::take(&mut text)));
            }
            parts.push(Part::Field { code, width, right });
        }
        if !text.is_empty() {
            parts.push(Part::Text(text));
        }
        Ok(Self(parts))
    }

    /// The codes, in order.
    pub fn codes(&self) -> impl Iterator<Item = char> {
        self.0.iter().filter_map(|part| match part {
            Part::Field { code, .. } => Some(*code),
            Part::Text(_) => None,
        })
    }

    /// One line, its fields told by their codes.
    pub fn line(&self, value: impl Fn(char) -> String) -> String {
        let mut line = String::new();
        for part in &self.0 {
            match part {
                Part::Text(text) => line.push_str(text),
                Part::Field { code, width, right } => {
                    let value = value(*code).replace(['\n', '\r', '\t'], " ");
                    let Some(width) = *width else {
                        line.push_str(&value);
                        continue;
                    };
                    let cut: String = value.chars().take(width).collect();
                    line.push_str(&if *right { format!("{cut:>width$}") } else { format!("{cut:<width$}") });
                }
            }
        }
        // Slurm leaves the blanks; nobody misses them.
        line.truncate(line.trim_end().len());
        line
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_cut_and_filled() {
        let columns = Columns::read("%.6i|%4j|%t%%x", "ijt").unwrap();
        let line = columns.line(|code| match code {
            'i' => "17".to_owned(),
            'j' => "a long name".to_owned(),
            _ => "R".to_owned(),
        });
        assert_eq!(line, "    17|a lo|R%x");
        assert_eq!(columns.codes().collect::<String>(), "ijt");
        assert!(Columns::read("%z", "ijt").unwrap_err().problem().unwrap().reason.contains("%z"));
        assert_eq!(Columns::read("%", "ijt").unwrap().line(|_| String::new()), "%");
    }
}
