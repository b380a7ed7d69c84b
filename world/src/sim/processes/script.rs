//! What a simulated program does, told by its words.
//!
//! `sim ms=3000 code=3 signal=9 out=NAME:BYTES log=LINES err=LINES fail_first=N hang
//! ckpt=MS:BYTES progress=MS`: runs for `ms`, writes `log` lines to its standard output and `err` lines to its
//! standard error, spread over that time, and at its end the `out` files; attempts up to `fail_first` exit with 1; `hang` never ends by
//! itself. `ckpt` keeps a checkpoint, and `progress` says how far it has come, each so
//! often. Anything that is not `sim` is a program that is not there.

use crate::processes::Launch;

/// See the module.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Script {
    pub(super) run_ms: u64,
    pub(super) code: i32,
    pub(super) signal: i32,
    pub(super) outputs: Vec<(String, u64)>,
    /// To standard output and standard error.
    pub(super) lines: [u64; 2],
    pub(super) hang: bool,
    /// Keeps them only when it is nudged; what lies between two counts as so long.
    pub(super) keeps_when_asked: bool,
    /// Keeps a checkpoint every so many milliseconds, of so many bytes.
    pub(super) checkpoint: Option<(u64, u64)>,
    /// Says how far it has come every so many milliseconds.
    pub(super) says_every_ms: Option<u64>,
    /// Of what it goes on from: how many it had kept by then.
    pub(super) from: u64,
}

impl Script {
    /// Reads the words of a launch; the error is as for a missing program.
    pub(super) fn read(launch: &Launch) -> Result<Self, String> {
        let words: Vec<&str> = match &launch.argv[..] {
            // A `run` script goes through the shell.
            [shell, flag, text] if shell.ends_with("sh") && flag == "-c" => text.split_whitespace().collect(),
            argv => argv.iter().map(String::as_str).collect(),
        };
        let Some((&"sim", rest)) = words.split_first() else {
            return Err(format!("program `{}` not found", words.first().unwrap_or(&"")));
        };
        let attempt = launch
            .env
            .iter()
            .find(|(name, _)| name == "DRUMLINE_ATTEMPT")
            .and_then(|(_, value)| value.parse::<u64>().ok())
            .unwrap_or(1);
        let mut script = Self::default();
        for word in rest {
            let (name, value) = word.split_once('=').unwrap_or((word, ""));
            let number =
                || value.parse::<u64>().map_err(|_| format!("`{word}` is no word of a simulated program"));
            match name {
                "ms" => script.run_ms = number()?,
                "code" => script.code = i32::try_from(number()?).unwrap_or(255),
                "signal" => script.signal = i32::try_from(number()?).unwrap_or(9),
                "log" => script.lines[0] = number()?,
                "err" => script.lines[1] = number()?,
                "hang" => script.hang = true,
                "ckpt" => {
                    let (every, bytes) = value.split_once(':').unwrap_or((value, "0"));
                    let every_ms = every.parse::<u64>().unwrap_or(0).max(1);
                    let asked = bytes.strip_suffix(":asked");
                    script.keeps_when_asked = asked.is_some();
                    let bytes = asked.unwrap_or(bytes);
                    script.checkpoint = Some((every_ms, bytes.parse().unwrap_or(0)));
                }
                "progress" => script.says_every_ms = Some(number()?.max(1)),
                "fail_first" if attempt <= number()? => script.code = 1,
                "fail_first" => {}
                "out" => {
                    let (file, bytes) = value.split_once(':').unwrap_or((value, "0"));
                    script.outputs.push((file.to_owned(), bytes.parse().unwrap_or(0)));
                }
                _ => return Err(format!("`{word}` is no word of a simulated program")),
            }
        }
        // What it has behind it it does not do again.
        if let Some((every_ms, _)) = script.checkpoint {
            let word = |(name, value): &(String, String)| {
                (name == "DRUMLINE_CHECKPOINT").then(|| value.parse::<u64>().ok()).flatten()
            };
            script.from = launch.env.iter().find_map(word).unwrap_or(0);
            script.run_ms = script.run_ms.saturating_sub(script.from.saturating_mul(every_ms)).max(1);
        }
        Ok(script)
    }

    /// Whole percent of its time that are over at this age.
    pub(super) fn percent(&self, age_ms: u64) -> u64 {
        if self.run_ms == 0 || self.hang { 0 } else { (age_ms * 100 / self.run_ms).min(100) }
    }

    /// Lines that a process of this age has written to a stream.
    pub(super) fn lines_due(&self, stream: usize, age_ms: u64) -> u64 {
        let lines = self.lines[stream];
        if self.run_ms == 0 || self.hang { lines } else { (lines * age_ms / self.run_ms).min(lines) }
    }

    /// The age at which the next line is due; `None` after the last.
    pub(super) fn next_line_ms(&self, written: [u64; 2]) -> Option<u64> {
        let due = |(written, lines): (u64, u64)| {
            (written < lines).then(|| ((written + 1) * self.run_ms).div_ceil(lines))
        };
        written.into_iter().zip(self.lines).filter_map(due).min()
    }
}
