//! Who gives up how much where room is short.

/// The level to which the largest must come down so that all together are no more than
/// `room` (max-min fair): whoever has less than it keeps all.
pub(super) fn level(mut held: Vec<u64>, room: u64) -> u64 {
    held.sort_unstable();
    let (mut left, mut rest) = (room, held.len() as u64);
    for bytes in held {
        let even = left / rest;
        if bytes > even {
            return even;
        }
        left -= bytes;
        rest -= 1;
    }
    u64::MAX
}

#[cfg(test)]
mod tests {
    use super::level;

    #[test]
    fn the_largest_come_down_to_one_level() {
        assert_eq!(level(vec![10, 20, 30], 60), u64::MAX, "all fit");
        assert_eq!(level(vec![100, 10, 20], 60), 30, "one floods");
        assert_eq!(level(vec![100, 50, 10], 60), 25, "two do");
        assert_eq!(level(vec![5, 5], 0), 0);
        assert_eq!(level(Vec::new(), 0), u64::MAX);
    }
}
