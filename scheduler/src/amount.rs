//! Amounts of what a machine has, in 64 bits so that sums over a cluster fit.

use crate::limits::NODE_MEMORY_BYTES_MAX;
use proto::{units, v1::Resources};

/// Cores (in thousandths), memory and GPUs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Amount {
    /// Thousandths of a core.
    pub millicores: u64,
    /// Bytes.
    pub memory_bytes: u64,
    /// Whole GPUs.
    pub gpus: u64,
}

impl Amount {
    /// As much as there may be.
    pub const ALL: Amount = Amount { millicores: u64::MAX, memory_bytes: u64::MAX, gpus: u64::MAX };

    /// What a message says; absent is nothing.
    #[must_use]
    pub fn of(resources: Option<&Resources>) -> Amount {
        resources.map_or(Amount::default(), |r| Amount {
            millicores: u64::from(r.millicores),
            memory_bytes: r.memory_bytes,
            gpus: u64::from(r.gpus),
        })
    }

    /// As a message; what does not fit there is shown as the largest that does.
    #[must_use]
    pub fn to_resources(self) -> Resources {
        Resources {
            millicores: u32::try_from(self.millicores).unwrap_or(u32::MAX),
            memory_bytes: self.memory_bytes,
            gpus: u32::try_from(self.gpus).unwrap_or(u32::MAX),
        }
    }

    /// No more than a node may have, whatever a row says: sums that stop at the largest
    /// number could not be undone.
    #[must_use]
    pub fn of_one_node(self) -> Amount {
        Amount {
            millicores: self.millicores.min(u64::from(u32::MAX)),
            memory_bytes: self.memory_bytes.min(NODE_MEMORY_BYTES_MAX),
            gpus: self.gpus.min(u64::from(u32::MAX)),
        }
    }

    /// So many of it.
    #[must_use]
    pub fn times(self, count: u64) -> Amount {
        Amount {
            millicores: self.millicores.saturating_mul(count),
            memory_bytes: self.memory_bytes.saturating_mul(count),
            gpus: self.gpus.saturating_mul(count),
        }
    }

    /// Both together.
    #[must_use]
    pub fn plus(self, other: Amount) -> Amount {
        Amount {
            millicores: self.millicores.saturating_add(other.millicores),
            memory_bytes: self.memory_bytes.saturating_add(other.memory_bytes),
            gpus: self.gpus.saturating_add(other.gpus),
        }
    }

    /// What is left, never below nothing.
    #[must_use]
    pub fn minus(self, other: Amount) -> Amount {
        Amount {
            millicores: self.millicores.saturating_sub(other.millicores),
            memory_bytes: self.memory_bytes.saturating_sub(other.memory_bytes),
            gpus: self.gpus.saturating_sub(other.gpus),
        }
    }

    /// Takes away what must be there.
    ///
    /// # Panics
    /// Where it is not: a count went wrong.
    pub fn release(&mut self, other: Amount) {
        assert!(other.fits_in(*self), "{other:?} is given back where only {self:?} is held");
        *self = self.minus(other);
    }

    /// Of each dimension the smaller.
    #[must_use]
    pub fn min_each(self, other: Amount) -> Amount {
        Amount {
            millicores: self.millicores.min(other.millicores),
            memory_bytes: self.memory_bytes.min(other.memory_bytes),
            gpus: self.gpus.min(other.gpus),
        }
    }

    /// No dimension is above the other's.
    #[must_use]
    pub fn fits_in(self, room: Amount) -> bool {
        self.millicores <= room.millicores && self.memory_bytes <= room.memory_bytes && self.gpus <= room.gpus
    }

    /// How many of `self` go into `room`; `u64::MAX` where `self` is nothing.
    #[must_use]
    pub fn count_in(self, room: Amount) -> u64 {
        let ratio = |room: u64, need: u64| room.checked_div(need).unwrap_or(u64::MAX);
        ratio(room.millicores, self.millicores)
            .min(ratio(room.memory_bytes, self.memory_bytes))
            .min(ratio(room.gpus, self.gpus))
    }
}

impl std::fmt::Display for Amount {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let plural = |one: bool| if one { "" } else { "s" };
        let mut parts = Vec::new();
        // What is not asked for is not mentioned, but something must be said.
        if self.millicores > 0 || (self.memory_bytes, self.gpus) == (0, 0) {
            let cores = units::format_millicores(self.millicores);
            parts.push(format!("{cores} core{}", plural(self.millicores == 1000)));
        }
        if self.memory_bytes > 0 {
            parts.push(units::brief_memory_bytes(self.memory_bytes));
        }
        if self.gpus > 0 {
            parts.push(format!("{} GPU{}", self.gpus, plural(self.gpus == 1)));
        }
        f.write_str(&parts.join(", "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn amounts_are_shown_as_people_write_them() {
        let amount = Amount { millicores: 1500, memory_bytes: 64 << 20, gpus: 1 };
        assert_eq!(amount.to_string(), "1.5 cores, 64MiB, 1 GPU");
        let shown = |millicores, memory_bytes, gpus| Amount { millicores, memory_bytes, gpus }.to_string();
        assert_eq!(shown(1000, 0, 0), "1 core");
        assert_eq!(shown(2000, 0, 2), "2 cores, 2 GPUs");
        assert_eq!(shown(0, 1 << 30, 0), "1GiB");
        assert_eq!(shown(0, 0, 0), "0 cores");
    }

    #[test]
    fn nothing_fits_without_end() {
        let room = Amount { millicores: 4000, memory_bytes: 100, gpus: 0 };
        assert_eq!(Amount::default().count_in(room), u64::MAX);
        assert_eq!(Amount { millicores: 1000, memory_bytes: 30, gpus: 0 }.count_in(room), 3);
        assert_eq!(Amount { millicores: 1000, memory_bytes: 0, gpus: 1 }.count_in(room), 0);
    }

    #[test]
    #[should_panic(expected = "given back")]
    fn more_than_held_is_never_given_back() {
        Amount { millicores: 1, ..Amount::default() }.release(Amount { millicores: 2, ..Amount::default() });
    }
}
