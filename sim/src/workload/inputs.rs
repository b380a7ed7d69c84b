//! What tasks are given, and what they say on their other stream: laid over the rest,
//! each from a stream of chance of its own, so that no other plan changes by it.

use super::Deed;
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

impl Given {
    /// As a job's spec has it once it is uploaded.
    #[must_use]
    pub fn input(&self) -> Input {
        let digest: [u8; 32] = Sha256::digest(bytes(self.salt, self.len)).into();
        let url = if self.by_url {
            format!("http://{ELSEWHERE}/given/{}/{}", self.salt, self.len)
        } else {
            String::new()
        };
        Input {
            name: self.name.clone(),
            url,
            digest: proto::keys::hex_of(&digest),
            size_bytes: self.len,
            ..Input::default()
        }
    }
}

/// Gives some jobs inputs.
pub fn draw(seed: u64, deeds: &mut [Deed]) {
    let mut rng = SmallRng::seed_from_u64(seed ^ 0x0069_6e70_7574);
    let share = *[0.0, 0.1, 0.4].choose(&mut rng).expect("not empty");
    let first: u64 = rng.random();
    for deed in deeds {
        if !rng.random_bool(share) {
            continue;
        }
        let count = *[1, 1, 2, 4].choose(&mut rng).expect("not empty");
        deed.inputs = (0..count)
            .map(|number| {
                let file = rng.random_range(0..FILES);
                let len = SIZES[usize::try_from(file).expect("a few") % SIZES.len()];
                let salt = first.wrapping_add(file);
                Given { name: format!("given-{number}"), salt, len, by_url: rng.random_bool(0.4) }
            })
            .collect();
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
        let given = Given { name: "book".to_owned(), salt: u64::MAX, len: 70_000, by_url: true };
        let input = given.input();
        let target = input.url.strip_prefix(&format!("http://{ELSEWHERE}")).unwrap();
        let bytes = of_target(target).unwrap();
        let digest: [u8; 32] = Sha256::digest(&bytes).into();
        assert_eq!((proto::keys::hex_of(&digest), bytes.len() as u64), (input.digest, input.size_bytes));
        assert_eq!(of_target("/given/7"), None);
    }
}
