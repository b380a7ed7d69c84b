//! One machine's view of a disk that is another's.

use super::{Client, Handle, State, locked};
use crate::disk::Disk;
use rand::RngCore;
use std::sync::{Arc, Mutex};

/// See [`super::HostileDisk::mount`].
#[derive(Clone, Debug)]
pub struct Mount {
    state: Arc<Mutex<State>>,
    client: Client,
}

impl Mount {
    pub(super) fn new(state: Arc<Mutex<State>>, client: Client) -> Self {
        Self { state, client }
    }

    /// The disk for the current incarnation of the machine that sees it. It outlives a
    /// power loss of the disk's machine; what was open then does not.
    #[must_use]
    pub fn handle(&self) -> Arc<dyn Disk> {
        let incarnation = locked(&self.state).lives[self.client];
        Arc::new(Handle { state: Arc::clone(&self.state), client: self.client, incarnation })
    }

    /// The machine's processes end; what they wrote reaches the disk.
    pub fn fence(&self) {
        locked(&self.state).end_life(self.client);
    }

    /// The machine loses power: of the files that it had open what it had written and
    /// not synced is kept, lost or torn. Whoever else has them open sees it.
    pub fn crash(&self, rng: &mut impl RngCore) {
        let mut state = locked(&self.state);
        let state = &mut *state;
        let open: Vec<_> = state.open[self.client].keys().copied().collect();
        for ino in open {
            let counts = &mut state.counts;
            state.tree.change_image(ino, |image| image.power_loss(rng, counts));
        }
        state.end_life(self.client);
    }
}

#[cfg(test)]
mod tests {
    use crate::disk::OpenMode;
    use crate::sim::HostileDisk;
    use rand::{SeedableRng, rngs::SmallRng};

    #[test]
    fn each_machine_has_lives_of_its_own() {
        let disk = HostileDisk::new(1);
        let (one, two) = (disk.mount(), disk.mount());
        let (first, second) = (one.handle(), two.handle());
        let file = first.open("log", OpenMode::CreateNew).unwrap();
        file.write_at(0, b"seen").unwrap();
        let seen = second.open("log", OpenMode::Read).unwrap();
        assert_eq!(seen.len().unwrap(), 4);
        one.fence();
        assert!(file.len().is_err() && first.list("").is_err() && one.handle().list("").is_ok());
        assert_eq!(seen.len().unwrap(), 4);
        drop(file);

        disk.set_away(true);
        assert!(second.list("").is_err() && disk.handle().list("").is_ok());
        disk.set_away(false);
        assert_eq!(seen.len().unwrap(), 4);
        disk.crash(&mut SmallRng::seed_from_u64(1));
        assert!(seen.len().is_err() && second.list("").is_ok());
    }

    #[test]
    fn a_machine_takes_only_its_own_unsynced_writes_with_it() {
        let mut lost = 0;
        for seed in 0..20 {
            let disk = HostileDisk::new(seed);
            let (one, two) = (disk.mount(), disk.mount());
            let mine = one.handle().open("mine", OpenMode::CreateNew).unwrap();
            let other = two.handle().open("other", OpenMode::CreateNew).unwrap();
            mine.write_at(0, b"mine").unwrap();
            other.write_at(0, b"other").unwrap();
            one.crash(&mut SmallRng::seed_from_u64(seed));
            assert_eq!(other.len().unwrap(), 5);
            lost += u32::from(two.handle().entry("mine").unwrap().len == 0);
        }
        assert!(lost > 0 && lost < 20, "{lost}");
    }
}
