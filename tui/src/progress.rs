//! One line that tells how a job gets on, rewritten in place.
//!
//! [`JobProgress`] is what there is to say, [`render`] the line, [`ProgressLine`]
//! the place on the terminal. [`TransferProgress`] and [`render_transfer`] are the same
//! for a file on its way. The line never wraps: what does not fit is left
//! out, steps that are over first.

use crossterm::{
    cursor::MoveToColumn,
    queue,
    terminal::{Clear, ClearType},
};
use proto::{
    estimate, units,
    v1::{JobSpec, JobStateRow, State, Step, StepState},
};
use std::io::{self, Write};

/// How a job gets on.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct JobProgress {
    /// The job's id.
    pub title: String,
    /// Where the job as a whole is.
    pub state: State,
    /// In the order of the spec.
    pub steps: Vec<StepProgress>,
    /// Since it was submitted.
    pub elapsed_ms: u64,
}

/// How one step gets on; counts are tasks.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StepProgress {
    /// As in the spec.
    pub name: String,
    /// Where the step as a whole is.
    pub state: State,
    /// All of its tasks.
    pub total: u64,
    /// Staging or running.
    pub active: u64,
    /// Ended well.
    pub completed: u64,
    /// Ended for good with a failure.
    pub failed: u64,
    /// Not to be run any more.
    pub cancelled: u64,
}

impl JobProgress {
    /// From what the server tells of a job.
    #[must_use]
    pub fn new(title: &str, spec: &JobSpec, state: &JobStateRow, elapsed_ms: u64) -> Self {
        let default = StepState::default();
        let steps = spec.steps.iter().enumerate();
        Self {
            title: title.to_owned(),
            state: state.state(),
            steps: steps
                .map(|(at, step)| step_progress(step, state.steps.get(at).unwrap_or(&default)))
                .collect(),
            elapsed_ms,
        }
    }

    /// Tasks that ended, and tasks in all.
    #[must_use]
    pub fn done_of(&self) -> (u64, u64) {
        self.steps.iter().fold((0, 0), |(done, total), step| {
            (done + step.completed + step.failed + step.cancelled, total + step.total)
        })
    }
}

fn step_progress(step: &Step, state: &StepState) -> StepProgress {
    StepProgress {
        name: step.name.clone(),
        state: state.state(),
        total: estimate::step_tasks(step),
        active: state.active,
        completed: state.completed,
        failed: state.failed,
        cancelled: state.cancelled,
    }
}

/// How the line may look.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Look {
    /// Colours are wanted and possible.
    pub color: bool,
}
impl Look {
    /// From the two variables that matter: `NO_COLOR` (any value but the empty
    /// one forbids colours) and `TERM`.
    #[must_use]
    pub fn from_environment(no_color: Option<&str>, term: Option<&str>) -> Self {
        Self { color: no_color.is_none_or(str::is_empty) && term != Some("dumb") }
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Paint {
    Plain,
    Dim,
    Good,
    Bad,
    Busy,
}
impl Paint {
    fn code(self) -> &'static str {
        match self {
            Self::Plain => "",
            Self::Dim => "\x1b[2m",
            Self::Good => "\x1b[32m",
            Self::Bad => "\x1b[31m",
            Self::Busy => "\x1b[36m",
        }
    }
    fn of(state: State) -> Self {
        match state {
            State::Completed => Self::Good,
            State::Failed | State::Cancelled => Self::Bad,
            State::Running | State::Staging => Self::Busy,
            State::Pending | State::Unspecified => Self::Dim,
        }
    }
}

const BAR_CELLS: u64 = 16;

/// So much of it filled.
fn bar(done: u64, total: u64) -> String {
    let filled = if total == 0 { 0 } else { u128::from(done) * u128::from(BAR_CELLS) / u128::from(total) };
    let filled = usize::try_from(filled.min(BAR_CELLS.into())).expect("at most the bar's cells");
    "█".repeat(filled) + &"░".repeat(BAR_CELLS as usize - filled)
}

/// How a file gets on its way.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TransferProgress {
    /// What people call it.
    pub title: String,
    /// In all.
    pub total_bytes: u64,
    /// On the other side, or as good as.
    pub done_bytes: u64,
    /// Of them, those that were there before.
    pub begun_bytes: u64,
    /// Since it began.
    pub elapsed_ms: u64,
}

/// The line, at most `width` columns wide: what does not fit is left out, the title last.
#[must_use]
pub fn render_transfer(progress: &TransferProgress, width: usize, look: Look) -> String {
    let TransferProgress { title, total_bytes, done_bytes, begun_bytes, elapsed_ms } = progress;
    let show = units::brief_memory_bytes;
    let moved = u128::from(done_bytes.saturating_sub(*begun_bytes));
    let per_s = moved.saturating_mul(1000) / u128::from((*elapsed_ms).max(1));
    let mut parts = vec![
        (format!("{title}  "), Paint::Plain),
        (format!("{} ", bar(*done_bytes, *total_bytes)), Paint::Good),
        (format!("{}/{}", show(*done_bytes), show(*total_bytes)), Paint::Plain),
    ];
    let missing = u128::from(total_bytes.saturating_sub(*done_bytes));
    if let Some(left_ms) = (missing * 1000).checked_div(per_s) {
        let narrow = |number: u128| u64::try_from(number).unwrap_or(u64::MAX);
        parts.push((format!("  {}/s", show(narrow(per_s))), Paint::Plain));
        if left_ms > 0 {
            // Seconds are told: what is less changes with every frame.
            let left = units::brief_duration_ms(narrow(left_ms).div_ceil(1000).saturating_mul(1000));
            parts.push((format!("  {left} left"), Paint::Dim));
        }
    }
    while parts.len() > 3 && columns(&parts) > width {
        parts.pop();
    }
    paint(&parts, width, look)
}

/// The line, at most `width` columns wide.
#[must_use]
pub fn render(progress: &JobProgress, width: usize, look: Look) -> String {
    let head = head(progress);
    let tail = vec![(format!("  {}", units::brief_duration_ms(progress.elapsed_ms)), Paint::Plain)];
    let room = width.saturating_sub(columns(&head) + columns(&tail));
    let line: Vec<(String, Paint)> = head.into_iter().chain(steps(progress, room)).chain(tail).collect();
    paint(&line, width, look)
}

fn head(progress: &JobProgress) -> Vec<(String, Paint)> {
    let (done, total) = progress.done_of();
    let failed: u64 = progress.steps.iter().map(|step| step.failed).sum();
    let bar = bar(done, total);
    let mut head = vec![
        (format!("{} ", progress.title), Paint::Plain),
        (progress.state.as_str_name().trim_start_matches("STATE_").to_owned(), Paint::of(progress.state)),
        (format!("  {bar} "), if failed > 0 { Paint::Bad } else { Paint::Good }),
        (format!("{done}/{total}"), Paint::Plain),
    ];
    if failed > 0 {
        head.push((format!("  {failed} failed"), Paint::Bad));
    }
    head
}

/// The steps that fit: those at work first, then those to come, then those over;
/// shown in the order of the spec.
fn steps(progress: &JobProgress, room: usize) -> Vec<(String, Paint)> {
    let rank = |step: &StepProgress| match step.state {
        State::Running | State::Staging => 0,
        State::Failed => 1,
        State::Pending | State::Unspecified => 2,
        State::Completed | State::Cancelled => 3,
    };
    let mut order: Vec<usize> = (0..progress.steps.len()).collect();
    order.sort_by_key(|at| rank(&progress.steps[*at]));
    let mut left = room;
    let mut shown = vec![None; progress.steps.len()];
    for at in order {
        let step = &progress.steps[at];
        let fitting =
            [step_text(step), step_text_short(step)].into_iter().find(|text| text.chars().count() <= left);
        // What comes after is of less interest than what is left out here.
        let Some(text) = fitting else { break };
        left -= text.chars().count();
        shown[at] = Some((text, Paint::of(step.state)));
    }
    shown.into_iter().flatten().collect()
}

fn step_text(step: &StepProgress) -> String {
    match step.state {
        State::Running | State::Staging if step.total > 1 => {
            format!("{} ({} active)", step_text_short(step), step.active)
        }
        _ => step_text_short(step),
    }
}

fn step_text_short(step: &StepProgress) -> String {
    let over = step.completed + step.failed + step.cancelled;
    match step.state {
        State::Completed => format!("  ✓{}", step.name),
        State::Failed => format!("  ✗{}", step.name),
        State::Cancelled => format!("  –{}", step.name),
        State::Running | State::Staging if step.total > 1 => format!("  {} {over}/{}", step.name, step.total),
        State::Running | State::Staging => format!("  {} …", step.name),
        State::Pending | State::Unspecified => format!("  {}", step.name),
    }
}

fn columns(parts: &[(String, Paint)]) -> usize {
    parts.iter().map(|(text, _)| text.chars().count()).sum()
}

fn paint(parts: &[(String, Paint)], width: usize, look: Look) -> String {
    let mut line = String::new();
    let mut left = width;
    for (text, paint) in parts {
        let cut: String = text.chars().map(|c| if c.is_control() { ' ' } else { c }).take(left).collect();
        left -= cut.chars().count();
        if look.color && *paint != Paint::Plain && !cut.is_empty() {
            line.push_str(paint.code());
            line.push_str(&cut);
            line.push_str("\x1b[0m");
        } else {
            line.push_str(&cut);
        }
    }
    line
}

/// The columns of the terminal; 80 where there is none or it does not tell.
#[must_use]
pub fn terminal_width() -> usize {
    match crossterm::terminal::size() {
        Ok((columns, _)) if columns > 0 => usize::from(columns),
        _ => 80,
    }
}

/// The line's place: drawn over itself, and cleared away before anything else
/// is written to the same terminal.
#[derive(Debug)]
pub struct ProgressLine<W: Write> {
    out: W,
    shown: Option<String>,
}
impl<W: Write> ProgressLine<W> {
    /// Nothing is shown yet.
    pub fn new(out: W) -> Self {
        Self { out, shown: None }
    }

    /// Shows a line unless it is there already.
    pub fn draw(&mut self, line: String) -> io::Result<()> {
        if self.shown.as_ref() == Some(&line) {
            return Ok(());
        }
        queue!(self.out, MoveToColumn(0), Clear(ClearType::UntilNewLine))?;
        self.out.write_all(line.as_bytes())?;
        self.out.flush()?;
        self.shown = Some(line);
        Ok(())
    }

    /// Takes the line away.
    pub fn clear(&mut self) -> io::Result<()> {
        if self.shown.take().is_some() {
            queue!(self.out, MoveToColumn(0), Clear(ClearType::UntilNewLine))?;
            self.out.flush()?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use insta::assert_snapshot;

    const PLAIN: Look = Look { color: false };

    fn step(name: &str, state: State, total: u64, active: u64, completed: u64, failed: u64) -> StepProgress {
        StepProgress { name: name.to_owned(), state, total, active, completed, failed, cancelled: 0 }
    }

    fn words() -> JobProgress {
        JobProgress {
            title: "default-17".to_owned(),
            state: State::Running,
            steps: vec![
                step("split", State::Completed, 1, 0, 1, 0),
                step("count", State::Running, 16, 4, 7, 0),
                step("sum", State::Pending, 1, 0, 0, 0),
            ],
            elapsed_ms: 12_345,
        }
    }

    #[test]
    fn tells_how_a_job_gets_on() {
        let mut job = words();
        assert_snapshot!(render(&job, 120, PLAIN), @"default-17 RUNNING  ███████░░░░░░░░░ 8/18  ✓split  count 7/16 (4 active)  sum  12s");
        job.steps[1].failed = 1;
        assert_snapshot!(render(&job, 120, PLAIN), @"default-17 RUNNING  ████████░░░░░░░░ 9/18  1 failed  ✓split  count 8/16 (4 active)  sum  12s");
        job.steps[1] = step("count", State::Failed, 16, 0, 15, 1);
        job.steps[2] = StepProgress { cancelled: 1, ..step("sum", State::Cancelled, 1, 0, 0, 0) };
        job.state = State::Failed;
        assert_snapshot!(render(&job, 120, PLAIN), @"default-17 FAILED  ████████████████ 18/18  1 failed  ✓split  ✗count  –sum  12s");
        job = JobProgress { title: "lab-1".to_owned(), state: State::Pending, ..JobProgress::default() };
        assert_snapshot!(render(&job, 120, PLAIN), @"lab-1 PENDING  ░░░░░░░░░░░░░░░░ 0/0  0ms");
    }

    #[test]
    fn tells_how_a_file_gets_on() {
        let mut file = TransferProgress {
            title: "data".to_owned(),
            total_bytes: 12 << 20,
            done_bytes: 5 << 20,
            begun_bytes: 3 << 20,
            elapsed_ms: 4_000,
        };
        assert_snapshot!(render_transfer(&file, 80, PLAIN), @"data  ██████░░░░░░░░░░ 5MiB/12MiB  512KiB/s  14s left");
        assert_snapshot!(render_transfer(&file, 45, PLAIN), @"data  ██████░░░░░░░░░░ 5MiB/12MiB  512KiB/s");
        assert_snapshot!(render_transfer(&file, 80, Look { color: true }).replace('\x1b', "^"), @"data  ^[32m██████░░░░░░░░░░ ^[0m5MiB/12MiB  512KiB/s^[2m  14s left^[0m");
        // Nothing has moved yet, or all has; an empty file; numbers that make no sense.
        (file.done_bytes, file.elapsed_ms) = (3 << 20, 0);
        assert_snapshot!(render_transfer(&file, 80, PLAIN), @"data  ████░░░░░░░░░░░░ 3MiB/12MiB");
        (file.done_bytes, file.elapsed_ms) = (12 << 20, 900);
        assert_snapshot!(render_transfer(&file, 80, PLAIN), @"data  ████████████████ 12MiB/12MiB  10MiB/s");
        assert!(render_transfer(&TransferProgress::default(), 80, PLAIN).contains("░░░░"));
        let most = u64::MAX;
        file =
            TransferProgress { total_bytes: 1, done_bytes: most, begun_bytes: 0, elapsed_ms: most, ..file };
        for width in 0..100 {
            assert!(render_transfer(&file, width, PLAIN).chars().count() <= width);
        }
    }

    #[test]
    fn what_does_not_fit_is_left_out_steps_over_first() {
        assert_snapshot!(render(&words(), 76, PLAIN), @"default-17 RUNNING  ███████░░░░░░░░░ 8/18  count 7/16 (4 active)  sum  12s");
        assert_snapshot!(render(&words(), 60, PLAIN), @"default-17 RUNNING  ███████░░░░░░░░░ 8/18  count 7/16  12s");
        for width in 0..120 {
            assert!(render(&words(), width, PLAIN).chars().count() <= width);
        }
    }

    #[test]
    fn colours_are_only_there_where_wanted() {
        assert_snapshot!(render(&words(), 120, Look { color: true }).replace('\x1b', "^"), @"default-17 ^[36mRUNNING^[0m^[32m  ███████░░░░░░░░░ ^[0m8/18^[32m  ✓split^[0m^[36m  count 7/16 (4 active)^[0m^[2m  sum^[0m  12s");
        assert!(!Look::from_environment(Some("1"), Some("xterm")).color);
        assert!(!Look::from_environment(None, Some("dumb")).color);
        assert!(Look::from_environment(None, Some("xterm")).color);
        assert!(Look::from_environment(Some(""), None).color);
    }

    #[test]
    fn is_built_from_what_the_server_tells() {
        let spec = proto::jobfile::parse(
            "[[step]]\nname = \"a\"\nrun = \"x\"\narray = \"1-5\"\n[[step]]\nname = \"b\"\nrun = \"x\"\nnodes = 2\n",
            std::path::Path::new(""),
        )
        .unwrap();
        let state = JobStateRow {
            state: State::Running.into(),
            steps: vec![StepState {
                state: State::Running.into(),
                active: 2,
                completed: 1,
                ..StepState::default()
            }],
            ..JobStateRow::default()
        };
        let progress = JobProgress::new("t-1", &spec, &state, 0);
        assert_eq!(progress.done_of(), (1, 6));
        assert_eq!(progress.steps[0], step("a", State::Running, 5, 2, 1, 0));
        assert_eq!(progress.steps[1].state, State::Unspecified);
    }

    #[test]
    fn is_drawn_once_and_cleared_once() {
        let mut line = ProgressLine::new(Vec::new());
        line.clear().unwrap();
        assert!(line.out.is_empty());
        line.draw("one".to_owned()).unwrap();
        let drawn = line.out.len();
        line.draw("one".to_owned()).unwrap();
        assert_eq!(line.out.len(), drawn);
        line.clear().unwrap();
        line.clear().unwrap();
        assert_eq!(String::from_utf8_lossy(&line.out).replace('\x1b', "^"), "^[1G^[Kone^[1G^[K");
    }
}
