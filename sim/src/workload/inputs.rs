//! What tasks are given, and what they say on their other stream: laid over the rest,
//! each from a stream of chance of its own, so that no other plan changes by it.

use super::Deed;
use proto::tree::{Entry, Tree};
use proto::v1::Input;
use rand::rngs::SmallRng;
use rand::seq::IndexedRandom;
use rand::{Rng, RngCore, SeedableRng};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

/// Where whatever is named by URL lies: nobody of the cluster.
pub const ELSEWHERE: &str = "10.0.0.3:8080";
/// So many different files there are in a run: most are asked for by several jobs.
const FILES: u64 = 12;
/// Some are more than a piece of a transfer.
const SIZES: [u64; 6] = [1, 700, 2_000, 20_000, 65_537, 150_000];

/// One input of a job.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Given {
    pub name: String,
    /// Decides its bytes.
    pub salt: u64,
    pub len: u64,
    /// Nodes fetch it from elsewhere; else the client uploads it.
    #[serde(default)]
    pub by_url: bool,
    /// It is a directory, whose files are of those that begin with this one: its salt decides
    /// the rest, and it has no bytes of its own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tree: Option<u64>,
}

/// The bytes of a file.
#[must_use]
pub fn bytes(salt: u64, len: u64) -> Vec<u8> {
    let mut bytes = vec![0; usize::try_from(len).expect("an input is small")];
    SmallRng::seed_from_u64(salt).fill_bytes(&mut bytes);
    bytes
}

/// Reads what [`Given::input`] wrote into a URL.
#[must_use]
pub fn of_target(target: &str) -> Option<Vec<u8>> {
    let (salt, len) = target.strip_prefix("/given/")?.split_once('/')?;
    Some(bytes(salt.parse().ok()?, len.parse().ok()?))
}

/// A file of a run: its salt and its length.
fn file(first: u64, number: u64) -> (u64, u64) {
    let len = SIZES[usize::try_from(number).expect("a few") % SIZES.len()];
    (first.wrapping_add(number), len)
}

fn digest_of(bytes: &[u8]) -> String {
    proto::keys::hex_of(&Sha256::digest(bytes))
}

impl Given {
    /// The tree of a directory, and the files that are in it.
    #[must_use]
    pub fn planted(&self) -> Option<(Tree, Vec<(u64, u64)>)> {
        let first = self.tree?;
        let mut rng = SmallRng::seed_from_u64(self.salt ^ 0x7472_6565);
        let (mut tree, mut files) = (Tree::default(), Vec::new());
        let mut add = |path: &str, entry| tree.add(path, entry).expect("a tree of ours is sound");
        for path in ["deep", "deep/er", "empty"] {
            add(path, Entry::Directory);
        }
        for number in 0..rng.random_range(0..6) {
            let (salt, len) = file(first, rng.random_range(0..FILES));
            let directory = ["", "deep/", "deep/er/"].choose(&mut rng).expect("not empty");
            let digest = digest_of(&bytes(salt, len));
            let executable = rng.random_bool(0.3);
            add(&format!("{directory}{number}"), Entry::File { digest, size_bytes: len, executable });
            files.push((salt, len));
        }
        for (path, target) in [("link", "deep/er"), ("deep/er/up", "../../empty")] {
            if rng.random_bool(0.5) {
                add(path, Entry::Link { target: target.to_owned() });
            }
        }
        Some((tree, files))
    }

    /// As a job's spec has it once it is uploaded.
    #[must_use]
    pub fn input(&self) -> Input {
        if let Some((tree, _)) = self.planted() {
            return Input {
                name: self.name.clone(),
                digest: digest_of(tree.manifest().as_bytes()),
                size_bytes: tree.total_bytes(),
                tree: Some(true),
                ..Input::default()
            };
        }
        let digest = digest_of(&bytes(self.salt, self.len));
        let url = if self.by_url {
            format!("http://{ELSEWHERE}/given/{}/{}", self.salt, self.len)
        } else {
            String::new()
        };
        Input { name: self.name.clone(), url, digest, size_bytes: self.len, ..Input::default() }
    }
}

/// Gives some jobs inputs.
pub fn draw(seed: u64, deeds: &mut [Deed]) {
    let mut rng = SmallRng::seed_from_u64(seed ^ 0x0069_6e70_7574);
    let share = *[0.0, 0.1, 0.4].choose(&mut rng).expect("not empty");
    let first: u64 = rng.random();
    for deed in deeds.iter_mut() {
        if !rng.random_bool(share) {
            continue;
        }
        let count = *[1, 1, 2, 4].choose(&mut rng).expect("not empty");
        deed.inputs = (0..count)
            .map(|number| {
                let (salt, len) = file(first, rng.random_range(0..FILES));
                let name = format!("given-{number}");
                Given { name, salt, len, by_url: rng.random_bool(0.4), tree: None }
            })
            .collect();
    }
    plant(seed, first, deeds);
}

/// So many different directories there are in a run.
const TREES: u64 = 5;

/// Makes directories of some of the files that clients upload.
fn plant(seed: u64, first: u64, deeds: &mut [Deed]) {
    let mut rng = SmallRng::seed_from_u64(seed ^ 0x7472_6565_7321);
    let share = *[0.0, 0.3, 0.7].choose(&mut rng).expect("not empty");
    for given in deeds.iter_mut().flat_map(|deed| &mut deed.inputs).filter(|given| !given.by_url) {
        if rng.random_bool(share) {
            given.tree = Some(first);
            given.salt = first.wrapping_add(rng.random_range(0..TREES));
            given.len = 0;
        }
    }
}

/// Has some steps write lines to their standard error.
pub fn warn(seed: u64, deeds: &mut [Deed]) {
    let mut rng = SmallRng::seed_from_u64(seed ^ 0x7374_6465_7272);
    let share = *[0.0, 0.1, 0.3].choose(&mut rng).expect("not empty");
    for step in deeds.iter_mut().flat_map(|deed| &mut deed.spec.steps) {
        if rng.random_bool(share) {
            step.argv.push(format!("err={}", rng.random_range(1..12)));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_url_names_is_what_the_job_says() {
        let given = Given { name: "book".to_owned(), salt: u64::MAX, len: 70_000, by_url: true, tree: None };
        let input = given.input();
        let target = input.url.strip_prefix(&format!("http://{ELSEWHERE}")).unwrap();
        let bytes = of_target(target).unwrap();
        let digest: [u8; 32] = Sha256::digest(&bytes).into();
        assert_eq!((proto::keys::hex_of(&digest), bytes.len() as u64), (input.digest, input.size_bytes));
        assert_eq!(of_target("/given/7"), None);
    }

    #[test]
    fn a_directory_is_the_same_each_time_and_shares_its_files() {
        let given = |salt| Given { name: "set".to_owned(), salt, len: 0, by_url: false, tree: Some(7) };
        let trees: Vec<_> = (0..40).map(|salt| given(salt).planted().unwrap()).collect();
        assert!(trees.iter().zip(0..).all(|(tree, salt)| given(salt).planted().as_ref() == Some(tree)));
        let files: std::collections::BTreeSet<_> = trees.iter().flat_map(|(_, files)| files).collect();
        assert!(
            files.len() as u64 <= FILES && trees.iter().any(|(tree, _)| tree.manifest().contains("\nx\t"))
        );
        assert!(trees.iter().any(|(tree, _)| tree.manifest().contains("\nl\t")));
    }
}
