//! What of a machine is free from when on, as far as is known: a step for each
//! instant at which that changes.

/// See the module. Instants are in seconds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Profile {
    /// From the instant to the next step's so much is free; the last step is for ever.
    /// Never empty, and neighbours differ.
    steps: Vec<(u64, u64)>,
}

impl Profile {
    /// All of a machine, from the beginning.
    pub(super) fn new(processors: u64) -> Self {
        Self { steps: vec![(0, processors)] }
    }

    /// What came before is over.
    pub(super) fn forget_before(&mut self, now: u64) {
        let first = self.steps.partition_point(|(at, _)| *at <= now);
        self.steps.drain(..first.saturating_sub(1));
    }

    /// The first instant, not before `from`, from which on so much is free for so long.
    pub(super) fn earliest(&self, from: u64, span: u64, size: u64) -> u64 {
        let mut index = self.steps.partition_point(|(at, _)| *at <= from).saturating_sub(1);
        let mut start = from;
        while let Some(&(at, free)) = self.steps.get(index) {
            if at >= start.saturating_add(span) {
                break;
            }
            index += 1;
            if free < size {
                // Nothing that begins before the next step fits.
                start = self.steps.get(index).map_or(u64::MAX, |(next, _)| *next);
            }
        }
        start
    }

    /// So much is taken from one instant to another. Panics where it is not there.
    pub(super) fn take(&mut self, from: u64, to: u64, size: u64) {
        self.change(from, to, |free| free.checked_sub(size).expect("only what is free is taken"));
    }

    /// So much is free again from one instant to another.
    pub(super) fn give(&mut self, from: u64, to: u64, size: u64) {
        self.change(from, to, |free| free + size);
    }

    fn change(&mut self, from: u64, to: u64, by: impl Fn(u64) -> u64) {
        if from >= to {
            return;
        }
        let first = self.cut(from);
        let last = self.cut(to);
        for (_, free) in &mut self.steps[first..last] {
            *free = by(*free);
        }
        // Inside nothing became equal to its neighbour; at the edges it may have.
        for edge in [last, first] {
            if edge > 0 && self.steps[edge].1 == self.steps[edge - 1].1 {
                self.steps.remove(edge);
            }
        }
    }

    /// The index of the step that begins at an instant, made if need be.
    fn cut(&mut self, at: u64) -> usize {
        let index = self.steps.partition_point(|(step, _)| *step < at);
        if self.steps.get(index).is_none_or(|(step, _)| *step != at) {
            let free = self.steps[index.saturating_sub(1)].1;
            self.steps.insert(index, (at, free));
        }
        index
    }
}
