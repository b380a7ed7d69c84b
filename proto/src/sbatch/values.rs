//! The grammar of values: Slurm's times, amounts of memory, counts, GPUs,
//! signals. Nothing here knows which option it reads for.

/// Why a value is none, and how one is written.
pub type Slip = (&'static str, &'static str);

const TIME: &str = "write it like 30 (minutes), 30:00, 2:00:00, 1-12 (a day and 12 hours) or 1-12:30:00";
const MEMORY: &str = "write it like 4000 (MiB), 512M, 16G or 1T";
const COUNT: &str = "write a whole number above 0";
const GRES: &str = "write it like gpu:2 or gpu:a100:2";
const SIGNAL: &str = "write it like USR1@120 or B:TERM@60";

/// A time limit in milliseconds; 0: without limit.
pub fn time_ms(text: &str) -> Result<u64, Slip> {
    let text = text.trim();
    if matches!(text.to_ascii_lowercase().as_str(), "unlimited" | "infinite" | "-1") {
        return Ok(0);
    }
    let numbers = |text: &str| -> Result<Vec<u64>, Slip> {
        text.split(':').map(|part| digits(part).ok_or(("is not a time", TIME))).collect()
    };
    let seconds = match text.split_once('-') {
        // Behind days stand hours, then minutes, then seconds.
        Some((days, rest)) => {
            let days = digits(days).ok_or(("is not a time", TIME))?;
            let rest = numbers(rest)?;
            let [hours, minutes, seconds] = match rest.as_slice() {
                [hours] => [*hours, 0, 0],
                [hours, minutes] => [*hours, *minutes, 0],
                [hours, minutes, seconds] => [*hours, *minutes, *seconds],
                _ => return Err(("is not a time", TIME)),
            };
            sum([(days, 86_400), (hours, 3600), (minutes, 60), (seconds, 1)])
        }
        // Without days, one number is minutes and two are minutes and seconds.
        None => match numbers(text)?.as_slice() {
            [minutes] => sum([(*minutes, 60), (0, 1), (0, 1), (0, 1)]),
            [minutes, seconds] => sum([(*minutes, 60), (*seconds, 1), (0, 1), (0, 1)]),
            [hours, minutes, seconds] => sum([(*hours, 3600), (*minutes, 60), (*seconds, 1), (0, 1)]),
            _ => return Err(("is not a time", TIME)),
        },
    };
    seconds.and_then(|seconds| seconds.checked_mul(1000)).ok_or(("is too long a time", TIME))
}

fn sum(parts: [(u64, u64); 4]) -> Option<u64> {
    parts.into_iter().try_fold(0_u64, |sum, (count, each)| sum.checked_add(count.checked_mul(each)?))
}

/// Only digits, and not too many.
pub fn digits(text: &str) -> Option<u64> {
    if text.is_empty() || !text.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    text.parse().ok()
}

/// Memory in bytes; a bare number is MiB. 0 is what Slurm calls all of a node.
pub fn memory_bytes(text: &str) -> Result<u64, Slip> {
    let text = text.trim();
    let split = text.bytes().take_while(u8::is_ascii_digit).count();
    let number = digits(&text[..split]).ok_or(("is not an amount of memory", MEMORY))?;
    let shift = match text[split..].to_ascii_lowercase().as_str() {
        "k" | "kb" => 10,
        "" | "m" | "mb" => 20,
        "g" | "gb" => 30,
        "t" | "tb" => 40,
        _ => return Err(("has a unit that is none of K, M, G, T", MEMORY)),
    };
    number.checked_mul(1 << shift).ok_or(("is too much memory", MEMORY))
}

/// A count above 0.
pub fn count(text: &str) -> Result<u32, Slip> {
    let number = digits(text.trim()).ok_or(("is not a whole number", COUNT))?;
    match u32::try_from(number) {
        Ok(0) => Err(("must be above 0", COUNT)),
        Ok(number) => Ok(number),
        Err(_) => Err(("is too large", COUNT)),
    }
}

/// `2` or `2-4`: the least and the most nodes.
pub fn nodes(text: &str) -> Result<(u32, u32), Slip> {
    let (least, most) = text.split_once('-').unwrap_or((text, text));
    let (least, most) = (count(least)?, if most.is_empty() { u32::MAX } else { count(most)? });
    if most < least {
        return Err(("runs backwards", "write it like 2 or 2-4"));
    }
    Ok((least, most))
}

/// GPUs, and what else was named.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Gpus {
    /// How many in all.
    pub count: u32,
    /// Their types, which Drumline does not know.
    pub types: Vec<String>,
    /// Resources of other kinds.
    pub others: Vec<String>,
}

/// `gpu`, `gpu:2`, `gpu:a100:2`, or several with commas.
pub fn gres(text: &str) -> Result<Gpus, Slip> {
    let mut found = Gpus::default();
    if text.trim().eq_ignore_ascii_case("none") {
        return Ok(found);
    }
    for item in text.split(',').map(str::trim) {
        match item.split_once(':').unwrap_or((item, "1")) {
            ("gpu", rest) => add_gpus(rest, &mut found)?,
            ("", _) => return Err(("is not a resource", GRES)),
            _ => found.others.push(item.to_owned()),
        }
    }
    Ok(found)
}

/// `2`, `a100:2`, or several with commas.
pub fn gpus(text: &str) -> Result<Gpus, Slip> {
    let mut found = Gpus::default();
    for item in text.split(',') {
        add_gpus(item.trim(), &mut found)?;
    }
    Ok(found)
}

fn add_gpus(text: &str, found: &mut Gpus) -> Result<(), Slip> {
    let slip = ("is not a number of GPUs", GRES);
    let (kind, number) = match text.rsplit_once(':') {
        Some((kind, number)) => (kind, number),
        None if digits(text).is_some() => ("", text),
        // `gpu:a100` is one of them.
        None => (text, "1"),
    };
    let number = digits(number).and_then(|number| u32::try_from(number).ok()).ok_or(slip)?;
    let is_type = |kind: &str| {
        kind.bytes().all(|b| b.is_ascii_alphanumeric() || b"_-.".contains(&b)) && !kind.starts_with('-')
    };
    if !is_type(kind) || text.is_empty() {
        return Err(slip);
    }
    found.count = found.count.checked_add(number).ok_or(slip)?;
    if !kind.is_empty() {
        found.types.push(kind.to_owned());
    }
    Ok(())
}

/// A signal before the end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Warning {
    /// `USR1`, or its number.
    pub signal: String,
    /// So long before the time limit.
    pub before_ms: u64,
    /// To the script itself; else to what it started by srun.
    pub to_script: bool,
}

/// Names that can be caught, and a few that cannot; each without its SIG.
const SIGNALS: [&str; 16] = [
    "HUP", "INT", "QUIT", "ABRT", "KILL", "USR1", "SEGV", "USR2", "PIPE", "ALRM", "TERM", "CONT", "STOP",
    "TSTP", "URG", "WINCH",
];

/// `[B:]SIGNAL[@SECONDS]`, where 60 seconds go without saying.
pub fn signal(text: &str) -> Result<Warning, Slip> {
    let (flags, rest) = text.split_once(':').unwrap_or(("", text));
    if !flags.chars().all(|flag| matches!(flag, 'B' | 'R')) {
        return Err(("has a flag that is none of B, R", SIGNAL));
    }
    let (name, seconds) = rest.split_once('@').unwrap_or((rest, "60"));
    let upper = name.trim().to_ascii_uppercase();
    let bare = upper.strip_prefix("SIG").unwrap_or(&upper);
    let known = SIGNALS.contains(&bare) || digits(bare).is_some_and(|number| (1..=31).contains(&number));
    if !known {
        return Err(("is no signal", SIGNAL));
    }
    let seconds = digits(seconds).filter(|seconds| *seconds <= 65_535);
    let seconds = seconds.ok_or(("is not a number of seconds up to 65535", SIGNAL))?;
    Ok(Warning { signal: bare.to_owned(), before_ms: seconds * 1000, to_script: flags.contains('B') })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn times_are_slurms() {
        for (text, seconds) in [
            ("30", 1800),
            ("30:15", 1815),
            ("2:30:15", 9015),
            ("1-0", 86_400),
            ("1-12", 129_600),
            ("1-12:30", 131_400),
            ("1-12:30:15", 131_415),
            ("00:01:00", 60),
            ("0", 0),
            ("UNLIMITED", 0),
            ("90:90", 5490),
        ] {
            assert_eq!(time_ms(text), Ok(seconds * 1000), "{text}");
        }
        for bad in ["", "1h", ":", "1:", "1-", "-5", "1:2:3:4", "1-1:2:3:4", "99999999999999999999", "+1"] {
            assert!(time_ms(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn memory_is_in_mebibytes() {
        for (text, bytes) in [
            ("4000", 4000 << 20),
            ("512M", 512 << 20),
            ("16g", 16 << 30),
            ("1T", 1 << 40),
            ("8GB", 8 << 30),
            ("4K", 4096),
            ("0", 0),
        ] {
            assert_eq!(memory_bytes(text), Ok(bytes), "{text}");
        }
        for bad in ["", "G", "1.5G", "4X", "-1", "99999999999T"] {
            assert!(memory_bytes(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn gpus_are_counted_whatever_their_type() {
        let shown = |found: Result<Gpus, Slip>| {
            found.map(|found| (found.count, found.types.join(" "), found.others.join(" "))).ok()
        };
        let some = |count: u32, types: &str, others: &str| Some((count, types.to_owned(), others.to_owned()));
        assert_eq!(shown(gres("gpu")), some(1, "", ""));
        assert_eq!(shown(gres("gpu:2")), some(2, "", ""));
        assert_eq!(shown(gres("gpu:a100:2,gpu:v100,shard:4")), some(3, "a100 v100", "shard:4"));
        assert_eq!(shown(gres("none")), some(0, "", ""));
        assert_eq!(shown(gpus("tesla:2,1")), some(3, "tesla", ""));
        for bad in ["", "gpu:", "gpu:a:b:c:1", "gpu:two:x", "gpu,,", ":1", "gpu:-1"] {
            assert!(gres(bad).is_err(), "{bad}");
        }
        assert!(gpus("").is_err());
    }

    #[test]
    fn signals_and_nodes_are_read() {
        let read = |text: &str| signal(text).map(|w| (w.signal, w.before_ms, w.to_script)).ok();
        assert_eq!(read("USR1@120"), Some(("USR1".into(), 120_000, false)));
        assert_eq!(read("B:sigterm"), Some(("TERM".into(), 60_000, true)));
        assert_eq!(read("BR:10@5"), Some(("10".into(), 5_000, true)));
        for bad in ["", "X:USR1", "NOPE@1", "USR1@", "USR1@99999", "0", "64"] {
            assert_eq!(read(bad), None, "{bad}");
        }
        assert_eq!((nodes("2"), nodes("2-4"), nodes("3-")), (Ok((2, 2)), Ok((2, 4)), Ok((3, u32::MAX))));
        assert!(nodes("4-2").is_err() && nodes("0").is_err() && nodes("a").is_err());
        assert_eq!(count("0"), Err(("must be above 0", COUNT)));
    }

    proptest! {
        #[test]
        fn no_text_breaks_the_readers(text in "\\PC{0,20}") {
            let _ = (time_ms(&text), memory_bytes(&text), count(&text), nodes(&text));
            let _ = (gres(&text), gpus(&text), signal(&text));
        }
    }
}
