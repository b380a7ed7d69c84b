//! The name of one rank of one attempt on this node, in the three forms it has:
//! as the server says it, as the supervisor keeps it, and as a file name.

use proto::v1::AttemptRef;
use std::sync::Arc;

/// One rank of one attempt. Ordered so that the ranks of an attempt are
/// neighbours.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Key {
    /// Who pays.
    pub tenant: Arc<str>,
    /// The job's number.
    pub job: u64,
    /// The step's place in the job.
    pub step: u32,
    /// Ordinal within the step.
    pub task: u64,
    /// From 1.
    pub attempt: u32,
    /// The grant's fence.
    pub epoch: u64,
    /// Within a gang; else 0.
    pub rank: u32,
}

/// Names a grant of this node: epochs grow per tenant.
pub type GrantKey = (Arc<str>, u64);

impl Key {
    /// A rank of the attempt the server names.
    #[must_use]
    pub fn of(attempt: &AttemptRef, rank: u32) -> Self {
        Self {
            tenant: attempt.tenant.as_str().into(),
            job: attempt.job_number,
            step: attempt.step,
            task: attempt.task,
            attempt: attempt.attempt,
            epoch: attempt.epoch,
            rank,
        }
    }

    /// The attempt as the server names it.
    #[must_use]
    pub fn attempt_ref(&self) -> AttemptRef {
        AttemptRef {
            tenant: self.tenant.to_string(),
            job_number: self.job,
            step: self.step,
            task: self.task,
            attempt: self.attempt,
            epoch: self.epoch,
        }
    }

    /// The grant it runs under.
    #[must_use]
    pub fn grant(&self) -> GrantKey {
        (Arc::clone(&self.tenant), self.epoch)
    }

    /// `tenant/job/step/task/rank/attempt/epoch`, as the supervisor knows it.
    #[must_use]
    pub fn process_key(&self) -> String {
        self.joined('/')
    }

    /// The same as a file name: tenant names have no dots.
    #[must_use]
    pub fn file_stem(&self) -> String {
        self.joined('.')
    }

    /// Made for every look at a spool file, so without the formatter.
    fn joined(&self, mark: char) -> String {
        let Self { tenant, job, step, task, attempt, epoch, rank } = self;
        let numbers = [*job, (*step).into(), *task, (*rank).into(), (*attempt).into(), *epoch];
        let mut text = String::with_capacity(tenant.len() + numbers.len() * 6);
        text.push_str(tenant);
        for number in numbers {
            text.push(mark);
            push_decimal(&mut text, number);
        }
        text
    }

    /// Reads [`Key::process_key`].
    #[must_use]
    pub fn from_process_key(text: &str) -> Option<Self> {
        Self::split(text, '/')
    }

    /// Reads [`Key::file_stem`].
    #[must_use]
    pub fn from_file_stem(text: &str) -> Option<Self> {
        Self::split(text, '.')
    }

    fn split(text: &str, mark: char) -> Option<Self> {
        let mut parts = text.split(mark);
        let key = Self {
            tenant: parts.next().filter(|tenant| !tenant.is_empty())?.into(),
            job: parts.next()?.parse().ok()?,
            step: parts.next()?.parse().ok()?,
            task: parts.next()?.parse().ok()?,
            rank: parts.next()?.parse().ok()?,
            attempt: parts.next()?.parse().ok()?,
            epoch: parts.next()?.parse().ok()?,
        };
        // One spelling for one name.
        (key.joined(mark) == text).then_some(key)
    }
}

fn push_decimal(text: &mut String, mut number: u64) {
    let mut digits = [0; 20];
    let mut at = digits.len();
    loop {
        at -= 1;
        digits[at] = b'0' + u8::try_from(number % 10).expect("a digit");
        number /= 10;
        if number == 0 {
            break;
        }
    }
    text.extend(digits[at..].iter().map(|digit| char::from(*digit)));
}

#[cfg(test)]
mod tests {
    use super::Key;

    #[test]
    fn a_key_survives_each_of_its_forms() {
        let key = Key { tenant: "a-b".into(), job: 7, step: 1, task: 99, attempt: 2, epoch: 5, rank: 3 };
        assert_eq!(key.process_key(), "a-b/7/1/99/3/2/5");
        assert_eq!(Key::from_process_key(&key.process_key()).as_ref(), Some(&key));
        assert_eq!(Key::from_file_stem(&key.file_stem()).as_ref(), Some(&key));
        assert_eq!(Key::of(&key.attempt_ref(), 3), key);
        assert_eq!(Key::from_file_stem("a.1.2"), None);
        assert_eq!(Key::from_file_stem("a.01.0.0.0.1.1"), None);
        assert_eq!(Key::from_file_stem("a.1.0.0.0.1.1.1"), None);
    }
}
