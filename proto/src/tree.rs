//! A directory as an object: the manifest that names all that is in it.
//!
//! The manifest is text, and there is one for each tree, so that equal directories have
//! equal digests:
//!
//! ```text
//! drumline tree 1
//! d⇥deep
//! f⇥5⇥DIGEST⇥deep/words
//! x⇥120⇥DIGEST⇥run
//! l⇥deep/words⇥words
//! ```
//! One line for each entry, in the order of the paths' bytes: `d` a directory, `f` a file,
//! `x` one that may be run, with length and SHA-256, `l` a symbolic link with what it says.
//! Each line ends with a line feed, fields are parted by tabs, and the path is the last.
//!
//! What must hold of a [`Tree`], whoever wrote its manifest: no path leads out of it, none
//! is there twice, and above each stands a directory of its own and never a link: so who
//! lays the entries one after another writes nowhere else. And no link leads out: it
//! climbs at its beginning alone, and no further than to the root of the tree. The
//! directory that a link lies in is no link, so what its text says is where it leads;
//! another link on its way down leads into the tree again.

use crate::{
    limits::{
        INPUT_BYTES_MAX, PATH_BYTES_MAX, TREE_DEPTH_MAX, TREE_ENTRIES_MAX, TREE_MANIFEST_BYTES_MAX,
        TREE_NAME_BYTES_MAX,
    },
    problem::Problem,
};
use std::{collections::BTreeMap, fmt::Write as _};

/// What every manifest begins with.
pub const HEAD: &str = "drumline tree 1\n";

/// What a path is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Entry {
    /// A directory.
    Directory,
    /// A file.
    File {
        /// Lower-case hexadecimal SHA-256.
        digest: String,
        /// Bytes.
        size_bytes: u64,
        /// It may be run.
        executable: bool,
    },
    /// A symbolic link.
    Link {
        /// What it says: a path, as seen from the directory it lies in.
        target: String,
    },
}

/// A directory with all below it. See the module.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tree {
    entries: BTreeMap<String, Entry>,
    /// The length of the bytes of each digest.
    objects: BTreeMap<String, u64>,
    total_bytes: u64,
    lines_bytes: u64,
}

impl Tree {
    /// Adds one entry; the directory it is in must be there already.
    pub fn add(&mut self, path: &str, entry: Entry) -> Result<(), Problem> {
        check_path(path)?;
        if self.entries.len() >= TREE_ENTRIES_MAX {
            return Err(too_many(path));
        }
        match self.entries.get(parent(path)) {
            None if parent(path).is_empty() => {}
            Some(Entry::Directory) => {}
            Some(_) => return Err(flaw(path, "lies in a file or a link", "give a tree of directories")),
            None => return Err(flaw(path, "lies in a directory that is not told before it", MADE_BY)),
        }
        if self.entries.contains_key(path) {
            return Err(flaw(path, "is there twice", MADE_BY));
        }
        let line_bytes = line(path, &entry).len() as u64;
        if self.manifest_bytes() + line_bytes > TREE_MANIFEST_BYTES_MAX {
            let reason =
                format!("is one entry too much: their list may have {TREE_MANIFEST_BYTES_MAX} bytes");
            return Err(flaw(path, &reason, PACK));
        }
        match &entry {
            Entry::Directory => {}
            Entry::File { digest, size_bytes, .. } => self.add_object(path, digest, *size_bytes)?,
            Entry::Link { target } => check_target(path, target)?,
        }
        self.lines_bytes += line_bytes;
        self.entries.insert(path.to_owned(), entry);
        Ok(())
    }

    fn add_object(&mut self, path: &str, digest: &str, size_bytes: u64) -> Result<(), Problem> {
        if !is_digest(digest) {
            return Err(flaw(path, "has no SHA-256", MADE_BY));
        }
        if *self.objects.get(digest).unwrap_or(&size_bytes) != size_bytes {
            return Err(flaw(path, "has the digest of a file of another length", MADE_BY));
        }
        let total = self.total_bytes.checked_add(size_bytes).filter(|total| *total <= INPUT_BYTES_MAX);
        self.total_bytes = total.ok_or_else(|| {
            let reason = format!("makes the tree too large: at most {INPUT_BYTES_MAX} bytes are taken");
            flaw(path, &reason, "give less")
        })?;
        self.objects.insert(digest.to_owned(), size_bytes);
        Ok(())
    }

    /// The tree's manifest.
    #[must_use]
    pub fn manifest(&self) -> String {
        let mut text = String::with_capacity(usize::try_from(self.manifest_bytes()).unwrap_or_default());
        text.push_str(HEAD);
        self.entries.iter().for_each(|(path, entry)| text.push_str(&line(path, entry)));
        text
    }

    /// Its length.
    #[must_use]
    pub fn manifest_bytes(&self) -> u64 {
        HEAD.len() as u64 + self.lines_bytes
    }

    /// Reads a manifest: what [`Tree::manifest`] writes, and nothing else.
    pub fn parse(manifest: &[u8]) -> Result<Self, Problem> {
        let whole = |reason: &str| Problem::new("spec.tree", "tree", "", reason, MADE_BY);
        if manifest.len() as u64 > TREE_MANIFEST_BYTES_MAX {
            return Err(whole(&format!(
                "its manifest has {} bytes of at most {TREE_MANIFEST_BYTES_MAX}",
                manifest.len()
            )));
        }
        let text = std::str::from_utf8(manifest).map_err(|_| whole("its manifest is no UTF-8 text"))?;
        let lines = text.strip_prefix(HEAD).ok_or_else(|| whole("it has no manifest of a tree"))?;
        let mut tree = Self::default();
        for line in lines.split_inclusive('\n') {
            let line = line.strip_suffix('\n').ok_or_else(|| whole("its manifest is cut short"))?;
            let (path, entry) = read_line(line).ok_or_else(|| {
                Problem::new("spec.tree", "tree", line, "is no line of a manifest", MADE_BY)
            })?;
            if tree.entries.last_key_value().is_some_and(|(last, _)| last.as_str() >= path) {
                return Err(flaw(path, "is there twice, or not in order", MADE_BY));
            }
            tree.add(path, entry)?;
        }
        Ok(tree)
    }

    /// All of it, in order: a directory before what is in it.
    pub fn entries(&self) -> impl Iterator<Item = (&str, &Entry)> {
        self.entries.iter().map(|(path, entry)| (path.as_str(), entry))
    }

    /// How many entries it has.
    #[must_use]
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// True for a directory with nothing in it.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Its files with a path, digest and length: those of the same bytes once.
    pub fn objects(&self) -> impl Iterator<Item = (&str, &str, u64)> {
        let mut seen = std::collections::BTreeSet::new();
        self.entries.iter().filter_map(move |(path, entry)| match entry {
            Entry::File { digest, size_bytes, .. } => {
                seen.insert(digest).then_some((path.as_str(), digest.as_str(), *size_bytes))
            }
            Entry::Directory | Entry::Link { .. } => None,
        })
    }

    /// Bytes of all files, of each path for itself.
    #[must_use]
    pub fn total_bytes(&self) -> u64 {
        self.total_bytes
    }
}

/// The refusal of more entries than the trees of a job may have.
#[must_use]
pub fn too_many(value: &str) -> Problem {
    let reason = format!("is one too many: the trees of a job may have {TREE_ENTRIES_MAX} entries");
    Problem::new("spec.too_many", "tree", value, reason, PACK)
}

const MADE_BY: &str = "let `drumline upload DIR` make the tree";
const PACK: &str = "give fewer files, or pack them with tar";

fn flaw(path: &str, reason: &str, remedy: &str) -> Problem {
    Problem::new("spec.tree", "tree", path, reason, remedy)
}

fn is_digest(text: &str) -> bool {
    text.len() == 64 && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}

/// The directory a path is in; nothing where that is the tree itself.
fn parent(path: &str) -> &str {
    path.rsplit_once('/').map_or("", |(parent, _)| parent)
}

fn check_path(path: &str) -> Result<(), Problem> {
    let inside = "use paths below the directory itself";
    if path.starts_with('/') {
        return Err(flaw(path, "is absolute", inside));
    }
    check_length(path, path)?;
    let names = path.split('/');
    if names.clone().any(|name| name == "..") {
        return Err(flaw(path, "leads out of the tree", inside));
    }
    if names.clone().any(|name| matches!(name, "" | ".")) {
        return Err(flaw(path, "has an empty name, or a single dot", inside));
    }
    if names.clone().any(|name| name.len() > TREE_NAME_BYTES_MAX) {
        return Err(flaw(
            path,
            &format!("has a name of more than {TREE_NAME_BYTES_MAX} bytes"),
            "shorten it",
        ));
    }
    if names.count() > TREE_DEPTH_MAX {
        return Err(flaw(path, &format!("lies deeper than {TREE_DEPTH_MAX} directories"), PACK));
    }
    Ok(())
}

/// Of a path, or of what a link says.
fn check_length(path: &str, text: &str) -> Result<(), Problem> {
    if text.chars().any(char::is_control) {
        return Err(flaw(path, "holds control characters", "rename it"));
    }
    if text.len() > PATH_BYTES_MAX {
        return Err(flaw(path, &format!("is longer than {PATH_BYTES_MAX} bytes"), "shorten it"));
    }
    Ok(())
}

fn check_target(path: &str, target: &str) -> Result<(), Problem> {
    check_length(path, target)?;
    if is_within(path, target) {
        return Ok(());
    }
    Err(flaw(path, &format!("is a link that leads out of the tree, or not straight: {target}"), LINKS))
}

const LINKS: &str = "put in its place what it leads to, or a link like ../NAME to something of the tree";

/// Whether a link at `path` stays in its tree, whatever else is in that. It may climb at its
/// beginning alone.
#[must_use]
pub fn is_within(path: &str, target: &str) -> bool {
    if target == "." {
        return true;
    }
    let depth = path.split('/').count() - 1;
    let climbs = target.split('/').take_while(|name| *name == "..").count();
    climbs <= depth && target.split('/').skip(climbs).all(|name| !matches!(name, "" | "." | ".."))
}

fn line(path: &str, entry: &Entry) -> String {
    let mut line = String::new();
    let written = match entry {
        Entry::Directory => writeln!(line, "d\t{path}"),
        Entry::File { digest, size_bytes, executable } => {
            let kind = if *executable { 'x' } else { 'f' };
            writeln!(line, "{kind}\t{size_bytes}\t{digest}\t{path}")
        }
        Entry::Link { target } => writeln!(line, "l\t{target}\t{path}"),
    };
    written.expect("a text takes all that is written to it");
    line
}

fn read_line(line: &str) -> Option<(&str, Entry)> {
    let fields: Vec<&str> = line.split('\t').collect();
    match fields[..] {
        ["d", path] => Some((path, Entry::Directory)),
        ["l", target, path] => Some((path, Entry::Link { target: target.to_owned() })),
        [kind @ ("f" | "x"), size, digest, path] => {
            let size_bytes: u64 = size.parse().ok()?;
            // One way to write each number.
            let entry = Entry::File { digest: digest.to_owned(), size_bytes, executable: kind == "x" };
            (size_bytes.to_string() == size).then_some((path, entry))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests;
