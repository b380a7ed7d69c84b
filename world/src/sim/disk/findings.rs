//! What a program finds that reads all there is in a directory.
//!
//! As by the calls of [`Disk`], each file by one read, so that the same faults strike. What
//! one inode holds is digested once: many tasks of a node read the same input, which
//! is one file by many names.
//!
//! [`Disk`]: crate::disk::Disk

use super::tree::{Ino, Kind};
use super::{HostileDisk, State, locked};
use crate::sim::faults::strikes;
use crate::transfer::hex_digest;
use sha2::{Digest, Sha256};

/// No input of a rehearsal is larger.
const READ_BYTES_MAX: usize = 64 << 20;

impl HostileDisk {
    /// By path below the directory: of a file the digest of what was read, and whether it
    /// may be run, of a link where it leads, of a directory nothing; `None` where it could
    /// not be read.
    pub(in crate::sim) fn findings(&self, directory: &str) -> Vec<(String, Option<String>)> {
        let mut state = locked(&self.state);
        let mut found = Vec::new();
        if let Ok(ino) = state.tree.find(directory) {
            state.look_through(ino, "", &mut found);
        }
        found
    }
}

impl State {
    /// The depth is bounded by that of paths.
    fn look_through(&mut self, dir: Ino, above: &str, found: &mut Vec<(String, Option<String>)>) {
        let Kind::Dir(names) = &self.tree.inode(dir).kind else { return };
        let names: Vec<(String, Ino)> =
            names.iter().map(|(name, ino)| (format!("{above}{name}"), *ino)).collect();
        for (mut name, ino) in names {
            match &self.tree.inode(ino).kind {
                Kind::Dir(_) => {
                    name.push('/');
                    found.push((name.clone(), Some(String::new())));
                    self.look_through(ino, &name, found);
                }
                Kind::Link(target) => found.push((name, Some(format!("-> {target}")))),
                Kind::File(_) => {
                    let read = self.digest(ino);
                    found.push((name, read));
                }
            }
        }
    }

    fn digest(&mut self, ino: Ino) -> Option<String> {
        let len = self.tree.image(ino).len();
        if len > READ_BYTES_MAX {
            return None;
        }
        if len > 0 && strikes(&mut self.rng, self.faults.read_error_ppm) {
            self.counts.read_errors += 1;
            return None;
        }
        let inode = self.tree.inode_mut(ino);
        let Kind::File(image) = &inode.kind else { unreachable!("asked of files") };
        let digest = inode.digest.get_or_insert_with(|| {
            let hash = image.pieces().fold(Sha256::new(), |hash, piece| hash.chain_update(piece));
            hex_digest(&hash.finalize())
        });
        let runs = if inode.mode & 0o111 == 0 { "" } else { " x" };
        Some(format!("{digest}{runs}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::disk::OpenMode;
    use crate::sim::DiskFaults;
    use rand::SeedableRng;
    use rand::rngs::SmallRng;

    fn digest(of: &[u8]) -> Option<String> {
        Some(hex_digest(&Sha256::digest(of)))
    }

    #[test]
    fn what_is_found_is_what_would_be_read_now() {
        let host = HostileDisk::new(1);
        let disk = host.handle();
        disk.create_dir_all("work/inputs/set").unwrap();
        let file = disk.open("work/inputs/set/a", OpenMode::CreateNew).unwrap();
        file.write_at(0, b"first").unwrap();
        disk.share("work/inputs/set/a", "work/inputs/b", 0o644).unwrap();
        disk.set_mode("work/inputs/b", 0o755).unwrap();
        disk.symlink("b", "work/inputs/c").unwrap();
        let runs = |bytes: &[u8]| digest(bytes).map(|digest| digest + " x");
        let found = |bytes: &[u8]| {
            let all = [
                ("b", runs(bytes)),
                ("c", Some("-> b".into())),
                ("set/", Some(String::new())),
                ("set/a", runs(bytes)),
            ];
            all.map(|(name, what)| (name.to_owned(), what)).to_vec()
        };
        assert_eq!(host.findings("work/inputs"), found(b"first"));
        file.sync().unwrap();
        file.write_at(0, b"other").unwrap();
        assert_eq!(host.findings("work/inputs"), found(b"other"), "a write is seen by every name");
        file.set_len(2).unwrap();
        assert_eq!(host.findings("work/inputs"), found(b"ot"));

        host.set_faults(DiskFaults { read_error_ppm: 1_000_000, ..DiskFaults::default() });
        assert_eq!(host.findings("work/inputs/set"), [("a".to_owned(), None)], "known or not");
        assert_eq!(host.counts().read_errors, 1);
        host.set_faults(DiskFaults::default());
        assert!(host.findings("work/nowhere").is_empty());

        for name in ["", "work", "work/inputs", "work/inputs/set"] {
            disk.sync_dir(name).unwrap();
        }
        // What no sync covered is kept, lost or torn; what is found is what is there.
        host.crash(&mut SmallRng::seed_from_u64(3));
        let left = crate::disk::read_all(&*host.handle(), "work/inputs/b", 100).unwrap();
        assert_eq!(host.findings("work/inputs"), found(&left));
    }
}
