//! Which files of a work directory a pattern means.
//!
//! Patterns are relative, with `/` between parts. `*` and `?` match within one
//! name, `[a-z]` and `[!a-z]` one character, `**` any number of directories;
//! `\` takes the next character as it is. As in a shell, a name that begins
//! with a dot is matched only by a part that does. Only plain files match (a
//! link to a file counts as that file, a link to a directory is not entered).
//! What was laid at `inputs/` and `from/` is nobody's output unless a pattern
//! begins with that very name.

use crate::limits;
use std::collections::BTreeMap;
use std::io;
use world::disk::{DirEntry, Disk};

/// What matched.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Matches {
    /// Entries by path, relative to the directory.
    pub files: BTreeMap<String, DirEntry>,
    /// Patterns that no file matched, in order.
    pub unmatched: Vec<String>,
}

/// Why patterns could not be matched.
#[derive(Debug)]
pub enum GlobError {
    /// The disk failed.
    Disk(io::Error),
    /// Absolute, empty, or with `.` or `..` in it.
    Pattern(String),
    /// More names than [`limits::OUTPUT_NAMES_MAX`] or files than
    /// [`limits::OUTPUT_FILES_MAX`].
    TooMany,
}
impl From<io::Error> for GlobError {
    fn from(error: io::Error) -> Self {
        Self::Disk(error)
    }
}

/// Matches patterns in the tree at `root`.
pub fn expand(disk: &dyn Disk, root: &str, patterns: &[String]) -> Result<Matches, GlobError> {
    let mut walk = Walk { disk, root, lists: BTreeMap::new(), names: 0, files: BTreeMap::new() };
    let mut unmatched = Vec::new();
    for pattern in patterns {
        let parts = parts(pattern).ok_or_else(|| GlobError::Pattern(pattern.clone()))?;
        if walk.descend("", &parts, 0)? == 0 {
            unmatched.push(pattern.clone());
        }
    }
    Ok(Matches { files: walk.files, unmatched })
}

/// The parts of a pattern; `None` where it leads out of the directory.
fn parts(pattern: &str) -> Option<Vec<&str>> {
    let trimmed = pattern.strip_prefix("./").unwrap_or(pattern);
    let mut parts: Vec<&str> = trimmed.split('/').collect();
    // "**" twice in a row means no more than once.
    parts.dedup_by(|second, first| *second == "**" && *first == "**");
    let bad = |part: &&str| part.is_empty() || *part == "." || *part == "..";
    (!parts.iter().any(bad)).then_some(parts)
}

struct Walk<'a> {
    disk: &'a dyn Disk,
    root: &'a str,
    lists: BTreeMap<String, Vec<DirEntry>>,
    names: usize,
    files: BTreeMap<String, DirEntry>,
}

impl Walk<'_> {
    /// Matches the parts below a directory; how many files that were.
    fn descend(&mut self, directory: &str, parts: &[&str], depth: usize) -> Result<usize, GlobError> {
        let Some((first, rest)) = parts.split_first() else { return Ok(0) };
        if depth > limits::OUTPUT_DEPTH_MAX {
            return Err(GlobError::TooMany);
        }
        let mut found = 0;
        if *first == "**" && !rest.is_empty() {
            found += self.descend(directory, rest, depth)?;
        }
        for entry in self.list(directory)? {
            let path = join(directory, &entry.name);
            if *first == "**" {
                let hidden = entry.name.starts_with('.') || (directory.is_empty() && is_laid(&entry.name));
                if hidden {
                    continue;
                }
                if entry.is_dir {
                    found += self.descend(&path, parts, depth + 1)?;
                } else if rest.is_empty() {
                    found += self.take(path, entry)?;
                }
            } else if name_matches(first, &entry.name) {
                let foreign = directory.is_empty() && is_laid(&entry.name) && *first != entry.name;
                if entry.is_dir && !rest.is_empty() && !foreign {
                    found += self.descend(&path, rest, depth + 1)?;
                } else if !entry.is_dir && rest.is_empty() {
                    found += self.take(path, entry)?;
                }
            }
        }
        Ok(found)
    }

    fn take(&mut self, path: String, entry: DirEntry) -> Result<usize, GlobError> {
        self.files.insert(path, entry);
        if self.files.len() > limits::OUTPUT_FILES_MAX {
            return Err(GlobError::TooMany);
        }
        Ok(1)
    }

    fn list(&mut self, directory: &str) -> Result<Vec<DirEntry>, GlobError> {
        if let Some(known) = self.lists.get(directory) {
            return Ok(known.clone());
        }
        let entries = self.disk.list(&join(self.root, directory))?;
        self.names += entries.len();
        if self.names > limits::OUTPUT_NAMES_MAX {
            return Err(GlobError::TooMany);
        }
        self.lists.insert(directory.to_owned(), entries.clone());
        Ok(entries)
    }
}

fn is_laid(name: &str) -> bool {
    name == "inputs" || name == "from"
}

fn join(directory: &str, name: &str) -> String {
    match (directory, name) {
        ("", name) => name.to_owned(),
        (directory, "") => directory.to_owned(),
        (directory, name) => format!("{directory}/{name}"),
    }
}

/// Whether one part of a pattern matches one name.
#[must_use]
pub fn name_matches(pattern: &str, name: &str) -> bool {
    if name.starts_with('.') && !pattern.starts_with('.') {
        return false;
    }
    let pattern: Vec<char> = pattern.chars().collect();
    let name: Vec<char> = name.chars().collect();
    let (mut at, mut read) = (0, 0);
    // Where the last star was, and how much it has taken so far.
    let mut star: Option<(usize, usize)> = None;
    while read < name.len() {
        if at < pattern.len() && pattern[at] == '*' {
            star = Some((at, read));
            at += 1;
        } else if let Some(next) = one_matches(&pattern, at, name[read]) {
            at = next;
            read += 1;
        } else if let Some((place, taken)) = star {
            star = Some((place, taken + 1));
            at = place + 1;
            read = taken + 1;
        } else {
            return false;
        }
    }
    pattern[at..].iter().all(|mark| *mark == '*')
}

/// Where the pattern goes on if its next unit matches this character.
fn one_matches(pattern: &[char], at: usize, found: char) -> Option<usize> {
    match *pattern.get(at)? {
        '?' => Some(at + 1),
        '\\' if at + 1 < pattern.len() => (pattern[at + 1] == found).then_some(at + 2),
        '[' => match class(pattern, at) {
            Some(Class { end, negated, ranges }) => {
                let within = ranges.iter().any(|(low, high)| (*low..=*high).contains(&found));
                (within != negated).then_some(end)
            }
            // An unclosed bracket is a bracket.
            None => (found == '[').then_some(at + 1),
        },
        plain => (plain == found).then_some(at + 1),
    }
}

/// A bracketed class of characters.
struct Class {
    /// Where the pattern goes on behind it.
    end: usize,
    negated: bool,
    /// Both ends included.
    ranges: Vec<(char, char)>,
}

/// The class that begins at `at`; `None` where no bracket closes it.
fn class(pattern: &[char], at: usize) -> Option<Class> {
    let negated = matches!(pattern.get(at + 1)?, '!' | '^');
    let first = at + 1 + usize::from(negated);
    let mut next = first;
    let mut ranges = Vec::new();
    loop {
        let low = *pattern.get(next)?;
        if low == ']' && next > first {
            return Some(Class { end: next + 1, negated, ranges });
        }
        match (pattern.get(next + 1), pattern.get(next + 2)) {
            (Some('-'), Some(high)) if *high != ']' => {
                ranges.push((low, *high));
                next += 3;
            }
            _ => {
                ranges.push((low, low));
                next += 1;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::disk_with;

    #[test]
    fn names_match_as_in_a_shell() {
        for (pattern, name, expected) in [
            ("words", "words", true),
            ("part.*", "part.01", true),
            ("part.*", "part", false),
            ("*", "anything", true),
            ("*", ".hidden", false),
            (".*", ".hidden", true),
            ("a?c", "abc", true),
            ("a?c", "ac", false),
            ("[a-c]x", "bx", true),
            ("[!a-c]x", "bx", false),
            ("[!a-c]x", "dx", true),
            ("[]]", "]", true),
            ("[", "[", true),
            ("*a*b*c", "xxaxxbxxc", true),
            ("*a*b*c", "xxaxxcxxb", false),
            ("\\*", "*", true),
            ("\\*", "x", false),
            ("é*", "école", true),
        ] {
            assert_eq!(name_matches(pattern, name), expected, "{pattern} against {name}");
        }
    }

    fn found(patterns: &[&str]) -> (Vec<String>, Vec<String>) {
        let disk = disk_with(&[
            "work/t/a.txt",
            "work/t/b.bin",
            "work/t/.secret",
            "work/t/deep/c.txt",
            "work/t/deep/er/d.txt",
            "work/t/inputs/book.txt",
            "work/t/from/split/part.txt",
        ]);
        let patterns: Vec<String> = patterns.iter().map(|text| (*text).to_owned()).collect();
        let matches = expand(&*disk, "work/t", &patterns).unwrap();
        (matches.files.into_keys().collect(), matches.unmatched)
    }

    #[test]
    fn trees_are_matched_by_parts() {
        assert_eq!(found(&["*.txt"]).0, ["a.txt"]);
        assert_eq!(found(&["./deep/*"]).0, ["deep/c.txt"]);
        assert_eq!(found(&["**/*.txt"]).0, ["a.txt", "deep/c.txt", "deep/er/d.txt"]);
        assert_eq!(found(&["**"]).0, ["a.txt", "b.bin", "deep/c.txt", "deep/er/d.txt"]);
        assert_eq!(found(&["inputs/*"]).0, ["inputs/book.txt"]);
        assert_eq!(found(&["*/book.txt"]), (vec![], vec!["*/book.txt".to_owned()]));
        assert_eq!(found(&["a.txt", "nothing"]).1, ["nothing"]);
        assert_eq!(found(&["deep"]).1, ["deep"], "a directory is no file");
    }

    #[test]
    fn patterns_do_not_lead_out() {
        let disk = disk_with(&["work/t/a"]);
        for pattern in ["../a", "/etc/passwd", "a/../b", "", "a//b"] {
            let refused = expand(&*disk, "work/t", &[pattern.to_owned()]);
            assert!(matches!(refused, Err(GlobError::Pattern(_))), "{pattern}");
        }
    }
}
