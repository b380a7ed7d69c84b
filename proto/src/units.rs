//! Units as people write them: time, memory, cores.
//!
//! Time: `90s`, `1h30m`, `2d`, `500ms`, or bare seconds. Memory: `64MiB`, `4GiB`
//! and the one-letter forms `64M`, `4G` are powers of 1024, as in other batch
//! systems; `64MB`, `4GB` are powers of 1000; bare numbers are bytes. Cores: `1`,
//! `0.5`, kept in thousandths. Rates of a network: `10Gbit`, `100Mbit`, powers of 1000 of
//! bits a second.

use crate::problem::Problem;
use std::fmt;

/// A text that is no such quantity.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnitError {
    /// As written.
    pub value: String,
    /// One line.
    pub reason: String,
    /// How it is written right.
    pub remedy: &'static str,
}
impl UnitError {
    /// The same as a refusal of a field.
    #[must_use]
    pub fn at(self, field: &str) -> Problem {
        Problem::new("spec.unit", field, self.value, self.reason, self.remedy)
    }
}
impl fmt::Display for UnitError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}; {}", self.reason, self.remedy)
    }
}
impl std::error::Error for UnitError {}

const TIME_REMEDY: &str = "write it like 90s, 2m, 1h30m, 2d, or as bare seconds";
const SINCE_REMEDY: &str = "write it like 10m, 2026-03-01T08:15:00Z, or as milliseconds since 1970";
const MEMORY_REMEDY: &str = "write it like 64MiB, 4GiB, 500MB, or as bare bytes";
const RATE_REMEDY: &str = "write it like 10Gbit, 2.5Gbit or 100Mbit, in bits a second";
const CORES_REMEDY: &str = "write it like 1, 4 or 0.5 (thousandths at the finest)";

/// Time units, largest first: each may appear once, in this order.
const TIME_UNITS: [(&str, u64); 5] =
    [("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1000), ("ms", 1)];

/// Reads a span of time into milliseconds.
pub fn parse_duration_ms(text: &str) -> Result<u64, UnitError> {
    let refuse =
        |reason: &str| UnitError { value: text.to_owned(), reason: reason.to_owned(), remedy: TIME_REMEDY };
    let too_large = || refuse("is too long a time");
    let mut rest = text.trim();
    if rest.is_empty() {
        return Err(refuse("no time is given"));
    }
    if rest.bytes().all(|b| b.is_ascii_digit()) {
        return rest.parse::<u64>().ok().and_then(|s| s.checked_mul(1000)).ok_or_else(too_large);
    }
    let mut total_ms: u64 = 0;
    let mut units = TIME_UNITS.as_slice();
    while !rest.is_empty() {
        let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
        let letters = rest[digits..].bytes().take_while(u8::is_ascii_alphabetic).count();
        if digits == 0 || letters == 0 {
            return Err(refuse("is not a span of time"));
        }
        let unit = &rest[digits..digits + letters];
        let Some(at) = units.iter().position(|(name, _)| *name == unit) else {
            return Err(refuse(if TIME_UNITS.iter().any(|(name, _)| *name == unit) {
                "its units are out of order"
            } else {
                "has a unit that is none of d, h, m, s, ms"
            }));
        };
        let count: u64 = rest[..digits].parse().map_err(|_| too_large())?;
        total_ms =
            count.checked_mul(units[at].1).and_then(|ms| total_ms.checked_add(ms)).ok_or_else(too_large)?;
        units = &units[at + 1..];
        rest = &rest[digits + letters..];
    }
    Ok(total_ms)
}

/// From when on something is wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Since {
    /// So many milliseconds before now.
    Ago(u64),
    /// Milliseconds since 1970.
    At(u64),
}

/// Reads `10m`, an instant as RFC 3339 has it, or milliseconds since 1970. Before that
/// nothing was written: an earlier instant is as good as the first.
pub fn parse_since(text: &str) -> Result<Since, UnitError> {
    let refuse =
        |reason: &str| UnitError { value: text.to_owned(), reason: reason.to_owned(), remedy: SINCE_REMEDY };
    let text = text.trim();
    if !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()) {
        return text.parse().map(Since::At).map_err(|_| refuse("is too far ahead"));
    }
    if let Ok(at) = text.parse::<jiff::Timestamp>() {
        return Ok(Since::At(u64::try_from(at.as_millisecond()).unwrap_or(0)));
    }
    match parse_duration_ms(text) {
        Ok(0) => Err(refuse("is no time back from now")),
        Ok(ago_ms) => Ok(Since::Ago(ago_ms)),
        Err(error) if text.starts_with(|first: char| first.is_ascii_digit()) && !text.contains('-') => {
            Err(refuse(&error.reason))
        }
        Err(_) => Err(refuse("is neither an instant nor a span of time")),
    }
}

/// An instant in UTC, to the second.
#[must_use]
pub fn format_instant(at_ms: u64) -> String {
    let at = i64::try_from(at_ms / 1000).ok().and_then(|at_s| jiff::Timestamp::from_second(at_s).ok());
    at.map_or_else(|| format!("{at_ms} ms since 1970"), |at| at.to_string())
}

/// Writes milliseconds so that [`parse_duration_ms`] reads the same back.
#[must_use]
pub fn format_duration_ms(span_ms: u64) -> String {
    if span_ms == 0 {
        return "0s".to_owned();
    }
    let mut rest = span_ms;
    let mut text = String::new();
    for (name, size) in TIME_UNITS {
        if rest >= size {
            text.push_str(&format!("{}{name}", rest / size));
            rest %= size;
        }
    }
    text
}

/// Writes milliseconds in at most two units, for a screen: `1.2s`, `3m05s`, `2h14m`.
#[must_use]
pub fn brief_duration_ms(span_ms: u64) -> String {
    let seconds = span_ms / 1000;
    match seconds {
        0 if span_ms < 1000 => format!("{span_ms}ms"),
        0..10 => format!("{seconds}.{}s", span_ms % 1000 / 100),
        10..60 => format!("{seconds}s"),
        60..3600 => format!("{}m{:02}s", seconds / 60, seconds % 60),
        3600..86_400 => format!("{}h{:02}m", seconds / 3600, seconds % 3600 / 60),
        _ => format!("{}d{:02}h", seconds / 86_400, seconds % 86_400 / 3600),
    }
}

/// Reads an amount of memory into bytes.
pub fn parse_memory_bytes(text: &str) -> Result<u64, UnitError> {
    let refuse =
        |reason: &str| UnitError { value: text.to_owned(), reason: reason.to_owned(), remedy: MEMORY_REMEDY };
    let trimmed = text.trim();
    let split = trimmed.bytes().take_while(|b| b.is_ascii_digit() || *b == b'.').count();
    let (number, unit) = (&trimmed[..split], trimmed[split..].trim_start());
    let (binary, decimal) = (1024_u64, 1000_u64);
    let (base, power) = match unit.to_ascii_lowercase().as_str() {
        "" | "b" => (1, 0),
        "k" | "kib" => (binary, 1),
        "m" | "mib" => (binary, 2),
        "g" | "gib" => (binary, 3),
        "t" | "tib" => (binary, 4),
        "kb" => (decimal, 1),
        "mb" => (decimal, 2),
        "gb" => (decimal, 3),
        "tb" => (decimal, 4),
        _ => return Err(refuse("has a unit that is none of B, KiB, MiB, GiB, TiB, KB, MB, GB, TB")),
    };
    let thousandths = parse_thousandths(number).map_err(refuse)?;
    let bytes = thousandths * u128::from(base.pow(power));
    if power == 0 && bytes % 1000 != 0 {
        return Err(refuse("is not a whole number of bytes"));
    }
    u64::try_from(bytes / 1000).map_err(|_| refuse("is too much memory"))
}

/// Writes bytes in the largest power of 1024 that divides them.
#[must_use]
pub fn format_memory_bytes(bytes: u64) -> String {
    for (name, shift) in [("TiB", 40), ("GiB", 30), ("MiB", 20), ("KiB", 10)] {
        if bytes > 0 && bytes.trailing_zeros() >= shift {
            return format!("{}{name}", bytes >> shift);
        }
    }
    bytes.to_string()
}

/// Writes bytes rounded to one decimal, for a screen: `1.5GiB`.
#[must_use]
pub fn brief_memory_bytes(bytes: u64) -> String {
    for (name, shift) in [("TiB", 40), ("GiB", 30), ("MiB", 20), ("KiB", 10)] {
        if bytes >= 1 << shift {
            let tenths = (u128::from(bytes) * 10) >> shift;
            return if tenths % 10 == 0 {
                format!("{}{name}", tenths / 10)
            } else {
                format!("{}.{}{name}", tenths / 10, tenths % 10)
            };
        }
    }
    format!("{bytes}B")
}

/// Reads cores into thousandths.
pub fn parse_millicores(text: &str) -> Result<u32, UnitError> {
    let refuse =
        |reason: &str| UnitError { value: text.to_owned(), reason: reason.to_owned(), remedy: CORES_REMEDY };
    let thousandths = parse_thousandths(text.trim()).map_err(refuse)?;
    u32::try_from(thousandths).map_err(|_| refuse("is too many cores"))
}

/// Reads the rate of a network into bytes a second.
pub fn parse_rate_bytes(text: &str) -> Result<u64, UnitError> {
    let refuse =
        |reason: &str| UnitError { value: text.to_owned(), reason: reason.to_owned(), remedy: RATE_REMEDY };
    let trimmed = text.trim();
    let split = trimmed.bytes().take_while(|b| b.is_ascii_digit() || *b == b'.').count();
    let (number, unit) = (&trimmed[..split], trimmed[split..].trim_start().to_ascii_lowercase());
    let bits = match unit.strip_suffix("/s").unwrap_or(&unit) {
        "kbit" | "kbps" => 1_000,
        "mbit" | "mbps" => 1_000_000,
        "gbit" | "gbps" => 1_000_000_000,
        "tbit" | "tbps" => 1_000_000_000_000,
        _ => return Err(refuse("has a unit that is none of kbit, Mbit, Gbit, Tbit")),
    };
    let thousandths = parse_thousandths(number).map_err(refuse)?;
    u64::try_from(thousandths * bits / 8_000).map_err(|_| refuse("is too fast"))
}

/// Writes thousandths of a core so that [`parse_millicores`] reads the same back.
#[must_use]
pub fn format_millicores(millicores: u64) -> String {
    if millicores.is_multiple_of(1000) {
        return (millicores / 1000).to_string();
    }
    format!("{}.{:03}", millicores / 1000, millicores % 1000).trim_end_matches('0').to_owned()
}

/// `12`, `0.5`, `.5`: at most three decimals, no sign.
fn parse_thousandths(number: &str) -> Result<u128, &'static str> {
    let (whole, decimals) = number.split_once('.').unwrap_or((number, "0"));
    let digits = |part: &str| part.bytes().all(|b| b.is_ascii_digit());
    if number.is_empty() || number == "." || !digits(whole) || !digits(decimals) || decimals.is_empty() {
        return Err("is not a number");
    }
    let kept = decimals.trim_end_matches('0');
    if kept.len() > 3 {
        return Err("is finer than thousandths");
    }
    let fraction: u128 = format!("{kept:0<3}").parse().map_err(|_| "is not a number")?;
    let whole: u64 = if whole.is_empty() { 0 } else { whole.parse().map_err(|_| "is too large a number")? };
    Ok(u128::from(whole) * 1000 + fraction)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn since_when_is_a_span_or_an_instant() {
        for (text, since) in [
            ("10m", Since::Ago(600_000)),
            ("1970-01-01T00:00:01Z", Since::At(1_000)),
            ("2026-03-01T09:15:00+01:00", Since::At(1_772_352_900_000)),
            ("1772352900000", Since::At(1_772_352_900_000)),
            ("0776-08-07T17:43:52.14Z", Since::At(0)),
        ] {
            assert_eq!(parse_since(text), Ok(since), "{text}");
        }
        for (bad, reason) in [
            ("", "is neither an instant nor a span of time"),
            ("yesterday", "is neither an instant nor a span of time"),
            ("2026-02-30T00:00:00Z", "is neither an instant nor a span of time"),
            ("0s", "is no time back from now"),
            ("18446744073709551616", "is too far ahead"),
        ] {
            let error = parse_since(bad).unwrap_err();
            assert_eq!((error.value.as_str(), error.reason.as_str()), (bad, reason));
        }
    }

    #[test]
    fn times_are_read_as_people_write_them() {
        for (text, ms) in [
            ("2m", 120_000),
            ("90s", 90_000),
            ("90", 90_000),
            ("1h30m", 5_400_000),
            ("1d12h", 129_600_000),
            ("500ms", 500),
            ("1s500ms", 1500),
            ("0", 0),
        ] {
            assert_eq!(parse_duration_ms(text), Ok(ms), "{text}");
        }
        for bad in
            ["", "m", "1x", "1m1h", "1m1m", "-1s", "1.5h", "1m 2", "99999999999999999999", "999999999999999d"]
        {
            let error = parse_duration_ms(bad).unwrap_err();
            assert_eq!(error.value, bad);
        }
        assert_eq!(
            parse_duration_ms("soon").unwrap_err().at("timeout").to_string(),
            "timeout = soon: is not a span of time; write it like 90s, 2m, 1h30m, 2d, or as bare seconds"
        );
    }

    #[test]
    fn memory_is_read_as_people_write_it() {
        for (text, bytes) in [
            ("64MiB", 64 << 20),
            ("4GiB", 4 << 30),
            ("4G", 4 << 30),
            ("1.5GiB", 3 << 29),
            ("1GB", 1_000_000_000),
            ("512 kb", 512_000),
            ("1024", 1024),
            ("0.5k", 512),
            // Whatever is printed is read, the largest too.
            ("18446744073709551615", u64::MAX),
        ] {
            assert_eq!(parse_memory_bytes(text), Ok(bytes), "{text}");
        }
        for bad in ["", "GiB", "1XB", "1.2", "-1M", "1e9", "99999999T", "1.2345G"] {
            assert!(parse_memory_bytes(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn cores_are_kept_in_thousandths() {
        for (text, millicores) in [("1", 1000), ("0.5", 500), (".25", 250), ("2.000", 2000), ("0.001", 1)] {
            assert_eq!(parse_millicores(text), Ok(millicores), "{text}");
        }
        for bad in ["", ".", "one", "0.0001", "-1", "1.", "99999999999"] {
            assert!(parse_millicores(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn rates_are_bits_and_are_kept_in_bytes() {
        for (text, bytes) in [
            ("10Gbit", 1_250_000_000),
            ("2.5 gbit/s", 312_500_000),
            ("100Mbps", 12_500_000),
            ("8kbit", 1_000),
            ("0Gbit", 0),
        ] {
            assert_eq!(parse_rate_bytes(text), Ok(bytes), "{text}");
        }
        for bad in ["", "10", "10GB", "10GiB", "Gbit", "-1Gbit", "99999999999999Tbit", "fast"] {
            assert!(parse_rate_bytes(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn brief_forms_fit_a_column() {
        for (ms, text) in
            [(7, "7ms"), (1250, "1.2s"), (59_999, "59s"), (185_000, "3m05s"), (8_040_000, "2h14m")]
        {
            assert_eq!(brief_duration_ms(ms), text);
        }
        for (bytes, text) in [(0, "0B"), (1536, "1.5KiB"), (64 << 20, "64MiB"), (3 << 29, "1.5GiB")] {
            assert_eq!(brief_memory_bytes(bytes), text);
        }
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_back(ms: u64, bytes: u64, millicores: u32) {
            prop_assert_eq!(parse_duration_ms(&format_duration_ms(ms)), Ok(ms));
            prop_assert_eq!(parse_memory_bytes(&format_memory_bytes(bytes)), Ok(bytes));
            prop_assert_eq!(parse_millicores(&format_millicores(u64::from(millicores))), Ok(millicores));
        }

        #[test]
        fn no_text_breaks_the_readers(text in "\\PC{0,20}") {
            let _ = (parse_duration_ms(&text), parse_memory_bytes(&text), parse_millicores(&text));
            let _ = parse_rate_bytes(&text);
        }
    }
}
