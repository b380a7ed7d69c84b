//! One job that is looked at: its steps, why it waits, its log.
//!
//! What must hold: the log is followed once the steps' names are known, from
//! where it was left whenever it breaks, and again when the user has the job
//! tried anew; of a long log the last lines are held.

use super::window::{Move, Window};
use crate::{
    limits::{LOG_LINE_BYTES_MAX, LOG_LINES_KEPT, LOG_SHIFT, LOG_SHIFT_MAX},
    lines::Prefixer,
    words,
};
use proto::{
    ids::JobId,
    v1::{JobProgress, JobSpec, JobStateRow, JobView, LogsReply, State, WhyReply},
};
use std::collections::VecDeque;

/// What of a job has the whole screen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Pane {
    /// A part for each.
    All,
    Steps,
    Why,
    Log,
}

/// One line of a log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Line {
    pub text: String,
    pub error: bool,
}

/// See the module.
#[derive(Clone, Debug)]
pub(crate) struct Detail {
    pub id: JobId,
    /// Which opening of a job this is; answers to earlier ones do not count.
    pub visit: u64,
    pub pane: Pane,
    pub view: Option<JobView>,
    pub why: Option<WhyReply>,
    /// Why it cannot be shown.
    pub problem: Option<String>,
    pub log: Log,
    pub steps: Window,
    pub why_rows: Window,
    /// A question about it is on its way, and something happened since.
    pub asked: bool,
    pub stale: bool,
    pub asked_ms: u64,
    pub why_asked: bool,
}

impl Detail {
    pub(crate) fn new(id: JobId, visit: u64, pane: Pane) -> Self {
        Self {
            id,
            visit,
            pane,
            view: None,
            why: None,
            problem: None,
            log: Log::default(),
            steps: Window::default(),
            why_rows: Window::default(),
            asked: false,
            stale: false,
            asked_ms: 0,
            why_asked: false,
        }
    }

    pub(crate) fn spec(&self) -> Option<&JobSpec> {
        self.view.as_ref()?.job.as_ref()?.spec.as_ref()
    }

    pub(crate) fn state_row(&self) -> Option<&JobStateRow> {
        self.view.as_ref()?.state.as_ref()
    }

    pub(crate) fn progress(&self) -> Option<&JobProgress> {
        self.view.as_ref()?.progress.as_ref()
    }

    pub(crate) fn state(&self) -> State {
        self.state_row().map_or(State::Unspecified, JobStateRow::state)
    }

    pub(crate) fn is_over(&self) -> bool {
        words::is_ended(self.state())
    }

    pub(crate) fn step_rows(&self) -> usize {
        self.spec().map_or(0, |spec| spec.steps.len())
    }

    /// Why it waits, line by line.
    pub(crate) fn why_lines(&self) -> Vec<&str> {
        let Some(why) = &self.why else { return Vec::new() };
        std::iter::once(why.headline.as_str()).chain(why.details.iter().map(String::as_str)).collect()
    }

    pub(crate) fn why_row_count(&self) -> usize {
        self.why.as_ref().map_or(0, |why| why.details.len() + 1)
    }

    pub(crate) fn scroll(&mut self, to: Move) {
        let (steps, why) = (self.step_rows(), self.why_row_count());
        match self.pane {
            Pane::Steps => self.steps.scroll(to, steps),
            Pane::Why => self.why_rows.scroll(to, why),
            Pane::All | Pane::Log => self.log.scroll(to),
        }
    }
}

/// The end of a log, and which part of it is shown.
#[derive(Clone, Debug, Default)]
pub(crate) struct Log {
    prefixer: Option<Prefixer>,
    lines: VecDeque<Line>,
    /// Lines that came before the first one held.
    dropped: u64,
    /// Where to go on.
    pub cursor: u64,
    /// Being followed, or soon again.
    pub followed: bool,
    /// It is whole; so many bytes of it are lost.
    pub ended: Option<u64>,
    /// First line shown, counted from the log's beginning; `None`: the last
    /// lines, as they come.
    top: Option<u64>,
    /// Columns left out on the left.
    pub shift: usize,
    pub height: usize,
}

impl Log {
    /// Once the steps are known.
    pub(crate) fn begin(&mut self, spec: &JobSpec) {
        if self.prefixer.is_none() {
            self.prefixer = Some(Prefixer::new(spec, false));
        }
    }

    /// True where there is something new to see.
    pub(crate) fn take(&mut self, reply: &LogsReply) -> bool {
        self.cursor = self.cursor.max(reply.cursor);
        let Some(prefixer) = self.prefixer.as_mut() else { return false };
        let mut came: Vec<_> = reply.chunks.iter().filter_map(|chunk| prefixer.push(chunk)).collect();
        if reply.end {
            came.extend(prefixer.finish());
            self.ended = Some(reply.missing_bytes);
            self.followed = false;
        }
        let news = !came.is_empty() || reply.end;
        for lines in came {
            for line in lines.bytes.split(|byte| *byte == b'\n') {
                // What follows the last line's end.
                if !line.is_empty() {
                    self.lines.push_back(Line { text: plain(line), error: lines.error });
                }
            }
        }
        while self.lines.len() > LOG_LINES_KEPT {
            self.lines.pop_front();
            self.dropped += 1;
        }
        news
    }

    /// The job goes on after its log had ended.
    pub(crate) fn goes_on(&mut self) {
        self.ended = None;
    }

    pub(crate) fn dropped(&self) -> u64 {
        self.dropped
    }

    pub(crate) fn len(&self) -> usize {
        self.lines.len()
    }

    pub(crate) fn is_at_end(&self) -> bool {
        self.top.is_none()
    }

    /// The first line shown, among those held.
    fn first(&self) -> usize {
        let last = self.lines.len().saturating_sub(self.height);
        match self.top {
            None => last,
            Some(top) => usize::try_from(top.saturating_sub(self.dropped)).unwrap_or(last).min(last),
        }
    }

    pub(crate) fn shown(&self) -> impl Iterator<Item = &Line> {
        self.lines.iter().skip(self.first()).take(self.height)
    }

    fn scroll(&mut self, to: Move) {
        let mut window = Window { top: self.first(), at: 0, height: self.height };
        window.scroll(to, self.lines.len());
        // At the end it goes along again.
        let at_end = window.top >= self.lines.len().saturating_sub(self.height);
        let down = matches!(to, Move::Down | Move::PageDown | Move::End);
        let stays_at_end = self.lines.len() <= self.height || at_end && down;
        self.top = (!stays_at_end).then_some(window.top as u64 + self.dropped);
    }

    pub(crate) fn shift(&mut self, right: bool) {
        self.shift = if right {
            self.shift.saturating_add(LOG_SHIFT).min(LOG_SHIFT_MAX)
        } else {
            self.shift.saturating_sub(LOG_SHIFT)
        };
    }
}

/// A line as text that cannot do anything to a terminal: without its escape
/// sequences, tabs as blanks, and of what was rewritten in place the last.
pub(crate) fn plain(line: &[u8]) -> String {
    let text = String::from_utf8_lossy(line);
    let text = text.trim_end_matches('\r');
    // A progress bar rewrites its line; what stands before it is not its own.
    let (prefix, own) =
        text.split_once(" | ").map_or(("", text), |(step, own)| (&text[..step.len() + 3], own));
    let own = own.rsplit('\r').next().unwrap_or(own);
    let mut out = String::with_capacity(prefix.len() + own.len());
    out.push_str(prefix);
    let mut chars = own.chars();
    while let Some(c) = chars.next() {
        match c {
            '\x1b' => skip_escape(&mut chars),
            '\t' => out.push_str("    "),
            c if c.is_control() => {}
            c => out.push(c),
        }
        if out.len() >= LOG_LINE_BYTES_MAX {
            out.push('…');
            break;
        }
    }
    out
}

/// Past an escape sequence: `ESC [ … letter`, `ESC ] … BEL`, or two characters.
fn skip_escape(chars: &mut std::str::Chars<'_>) {
    match chars.next() {
        Some('[') => {
            for c in chars.by_ref() {
                if ('\x40'..='\x7e').contains(&c) {
                    return;
                }
            }
        }
        Some(']') => {
            for c in chars.by_ref() {
                if c == '\x07' || c == '\x1b' {
                    return;
                }
            }
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proto::v1::{LogChunk, Step, Stream};

    fn log() -> Log {
        let mut log = Log { height: 3, ..Log::default() };
        log.begin(&JobSpec {
            steps: vec![Step { name: "main".into(), ..Step::default() }],
            ..JobSpec::default()
        });
        log
    }

    fn reply(text: &str, cursor: u64) -> LogsReply {
        let chunk = LogChunk {
            stream: Stream::Stdout.into(),
            data: text.as_bytes().to_vec().into(),
            ..LogChunk::default()
        };
        LogsReply { chunks: vec![chunk], cursor, ..LogsReply::default() }
    }

    fn shown(log: &Log) -> Vec<&str> {
        log.shown().map(|line| line.text.trim_start_matches("main | ")).collect()
    }

    #[test]
    fn the_last_lines_are_shown_until_one_looks_back() {
        let mut log = log();
        assert!(log.take(&reply("1\n2\n3\n4\n5\nha", 9)));
        assert_eq!((shown(&log), log.cursor), (vec!["3", "4", "5"], 9));
        log.scroll(Move::Up);
        assert!(log.take(&reply("lf\n7\n", 12)));
        assert_eq!((shown(&log), log.is_at_end()), (vec!["2", "3", "4"], false));
        log.scroll(Move::PageDown);
        assert_eq!(shown(&log), ["4", "5", "half"]);
        log.scroll(Move::End);
        assert_eq!((shown(&log), log.is_at_end()), (vec!["5", "half", "7"], true));
        assert!(!log.take(&reply("no end", 13)));
        assert!(log.take(&LogsReply { end: true, cursor: 13, ..LogsReply::default() }));
        assert_eq!((shown(&log), log.ended), (vec!["half", "7", "no end"], Some(0)));
    }

    #[test]
    fn of_a_long_log_the_end_is_held_and_what_is_looked_at_stands_still() {
        let mut log = log();
        let text: String = (0..LOG_LINES_KEPT).map(|number| format!("{number}\n")).collect();
        log.take(&reply(&text, 1));
        log.scroll(Move::Home);
        for _ in 0..20 {
            log.scroll(Move::Down);
        }
        assert_eq!(shown(&log), ["20", "21", "22"]);
        log.take(&reply("x\ny\n", 2));
        assert_eq!((shown(&log), log.dropped(), log.len()), (vec!["20", "21", "22"], 2, LOG_LINES_KEPT));
        log.take(&reply(&text, 3));
        assert_eq!(shown(&log), ["0", "1", "2"]);
    }

    #[test]
    fn a_line_does_nothing_to_the_terminal() {
        assert_eq!(plain(b"main | \x1b[31mred\x1b[0m\x1b]0;title\x07 \ta\x08b\x07"), "main | red     ab");
        assert_eq!(plain(b"main | 10%\r50%\r100%\r"), "main | 100%");
        assert_eq!(plain(b"\xff\x1b"), "\u{fffd}");
        assert!(plain(&[b'x'; 9000]).len() < LOG_LINE_BYTES_MAX + 8);
    }
}
