//! Inputs that are directories: what their manifests name is laid as files, directories
//! and links of the task's own directory.
//!
//! A manifest may say anything. Only one that [`Tree`] reads is heeded, and such a one names
//! nothing outside of itself; and the attempt's directory is fresh, so nothing of it leads
//! elsewhere.

use super::stager::{Placement, Source};
use proto::limits::{TREE_ENTRIES_MAX, TREE_MANIFEST_BYTES_MAX};
use proto::tree::{Entry, Tree, too_many};
use proto::v1::Input;
use sha2::{Digest as _, Sha256};
use std::collections::BTreeMap;
use std::io;
use world::disk::{Disk, read_all};

/// What one attempt is to find, beside files.
#[derive(Debug, Default)]
pub(super) struct Frame {
    /// Of the trees so far.
    entries: usize,
    directories: Vec<String>,
    /// Path and what it says.
    links: Vec<(String, String)>,
}

/// A manifest that was fetched.
pub(super) enum Read {
    Tree(Tree),
    /// It cannot be laid.
    Flaw(String),
    /// A task wrote into it, or it is not there any more.
    Changed,
}

/// Reads a manifest and looks whether it is the one that is due. Blocks.
pub(super) fn read(disk: &dyn Disk, path: &str, input: &Input) -> io::Result<Read> {
    let told = |what: String| Ok(Read::Flaw(format!("input `{}`: {what}", input.name)));
    let manifest = match read_all(disk, path, TREE_MANIFEST_BYTES_MAX) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Read::Changed),
        Err(error) if error.kind() == io::ErrorKind::FileTooLarge => {
            return told(format!("its manifest has more than {TREE_MANIFEST_BYTES_MAX} bytes"));
        }
        read => read?,
    };
    if proto::keys::hex_of(&Sha256::digest(&manifest)) != input.digest {
        return Ok(Read::Changed);
    }
    match Tree::parse(&manifest) {
        Ok(tree) => Ok(Read::Tree(tree)),
        Err(flaw) => told(flaw.to_string()),
    }
}

impl Frame {
    /// Adds what a tree needs below `inputs/<name>`; the error says why it cannot be.
    pub(super) fn add(
        &mut self,
        (name, tree): (&str, &Tree),
        placements: &mut Vec<Placement>,
        sources: &mut BTreeMap<String, Source>,
    ) -> Result<(), String> {
        self.entries += tree.len();
        if self.entries > TREE_ENTRIES_MAX {
            return Err(too_many(name).to_string());
        }
        let root = format!("inputs/{name}");
        for (path, entry) in tree.entries() {
            let path = format!("{root}/{path}");
            match entry {
                Entry::Directory => self.directories.push(path),
                Entry::Link { target } => self.links.push((path, target.clone())),
                Entry::File { digest, size_bytes, executable } => {
                    let source =
                        Source { size_bytes: *size_bytes, within: path.clone(), ..Source::default() };
                    sources.entry(digest.clone()).or_insert(source);
                    let mode = if *executable { 0o755 } else { 0 };
                    placements.push(Placement { path, digest: digest.clone(), mode, own: false });
                }
            }
        }
        self.directories.push(root);
        Ok(())
    }

    /// Makes directories and links below `root`: first of all, and as often as need be.
    pub(super) fn lay(&self, disk: &dyn Disk, root: &str) -> io::Result<()> {
        for path in &self.directories {
            disk.create_dir_all(&format!("{root}/{path}"))?;
        }
        for (path, target) in &self.links {
            let place = format!("{root}/{path}");
            match disk.symlink(target, &place) {
                // Of an earlier round.
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                laid => laid?,
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::disk_with;
    use world::disk::OpenMode;

    fn input(manifest: &str) -> Input {
        let digest = proto::keys::hex_of(&Sha256::digest(manifest));
        Input { name: "data".to_owned(), digest, ..Input::default() }
    }

    #[test]
    fn a_manifest_is_laid_or_its_flaw_is_told() {
        let disk = disk_with(&[]);
        let manifest =
            format!("{}d\tempty\nl\tempty\tlink\nx\t1\t{}\trun\n", proto::tree::HEAD, "a".repeat(64));
        let write = |text: &str| {
            let file = disk.open("manifest", OpenMode::CreateOrWrite).unwrap();
            file.set_len(0).unwrap();
            file.write_at(0, text.as_bytes()).unwrap();
        };
        assert!(matches!(read(&*disk, "manifest", &input("")).unwrap(), Read::Changed));
        write(&manifest);
        assert!(matches!(read(&*disk, "manifest", &input("other")).unwrap(), Read::Changed));
        let Read::Tree(tree) = read(&*disk, "manifest", &input(&manifest)).unwrap() else {
            panic!("it is one")
        };
        let (mut frame, mut placements, mut sources) = (Frame::default(), Vec::new(), BTreeMap::new());
        frame.add(("data", &tree), &mut placements, &mut sources).unwrap();
        assert_eq!((placements[0].path.as_str(), placements[0].mode), ("inputs/data/run", 0o755));
        assert_eq!(sources["a".repeat(64).as_str()].size_bytes, 1);
        for _ in 0..2 {
            frame.lay(&*disk, "work/1").unwrap();
        }
        assert_eq!(disk.read_link("work/1/inputs/data/link").unwrap(), "empty");
        assert!(disk.is_vacant("work/1/inputs/data/empty").unwrap());

        for (hostile, told) in [
            ("d\t../out\n", "input `data`: tree = ../out: leads out of the tree"),
            ("l\t/etc\tetc\n", "input `data`: tree = etc: is a link that leads out"),
            ("l\t.\ta\nd\ta/b\n", "input `data`: tree = a/b: lies in a file or a link"),
        ] {
            let hostile = format!("{}{hostile}", proto::tree::HEAD);
            write(&hostile);
            let Read::Flaw(text) = read(&*disk, "manifest", &input(&hostile)).unwrap() else {
                panic!("{told}")
            };
            assert!(text.starts_with(told), "{text}");
        }
        disk.open("manifest", OpenMode::Write).unwrap().set_len(TREE_MANIFEST_BYTES_MAX + 1).unwrap();
        assert!(matches!(read(&*disk, "manifest", &input("")).unwrap(), Read::Flaw(_)));
    }

    #[test]
    fn the_trees_of_an_attempt_have_a_limit_together() {
        let mut tree = Tree::default();
        for number in 0..=TREE_ENTRIES_MAX / 2 {
            tree.add(&number.to_string(), Entry::Directory).unwrap();
        }
        let (mut frame, mut placements, mut sources) = (Frame::default(), Vec::new(), BTreeMap::new());
        frame.add(("one", &tree), &mut placements, &mut sources).unwrap();
        let refused = frame.add(("two", &tree), &mut placements, &mut sources).unwrap_err();
        assert!(refused.contains("the trees of a job may have 65536 entries"), "{refused}");
    }
}
