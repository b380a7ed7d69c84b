//! What stands in a log in the place of bytes that were given up.

/// The line for so many bytes. `within_line`: what came before them ends within a line,
/// which is ended first.
#[must_use]
pub fn told(bytes: u64, within_line: bool) -> String {
    let digits = bytes.to_string();
    let mut number = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            number.push(',');
        }
        number.push(digit);
    }
    let before = if within_line { "\n" } else { "" };
    let verb = if bytes == 1 { "byte of this log was" } else { "bytes of this log were" };
    format!(
        "{before}[drumline: {number} {verb} given up: the node's disk had no room while the server could not take them]\n"
    )
}

#[cfg(test)]
mod tests {
    use super::told;

    #[test]
    fn a_gap_is_told_in_a_line_of_its_own() {
        assert_eq!(
            told(12_345_678, false),
            "[drumline: 12,345,678 bytes of this log were given up: the node's disk had no room while the server could not take them]\n"
        );
        assert!(told(1_000, true).starts_with("\n[drumline: 1,000 bytes "));
        assert!(told(999, false).starts_with("[drumline: 999 bytes "));
        assert!(told(1, false).starts_with("[drumline: 1 byte of this log was given up"));
    }
}
