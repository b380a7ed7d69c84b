//! All that the console knows and shows.

use super::{
    clock,
    detail::{Detail, Pane},
    feeds::Feeds,
    jobs::Jobs,
    tenants::Tenants,
    view::layout,
    window::Window,
};
use crate::limits::HEARD_LATE_MS;
use proto::{
    ids::JobId,
    v1::{Event, NodeView, PoolView},
};
use std::collections::VecDeque;

/// What the console is told when it starts.
#[derive(Clone, Debug, Default)]
pub struct Settings {
    /// The server, as people name it.
    pub server: String,
    /// Only this tenant; empty: all that the token sees.
    pub tenant: String,
    /// Colours are wanted and possible.
    pub color: bool,
}

/// What fills the screen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Screen {
    Overview,
    Jobs,
    Nodes,
    Job,
}

/// What lies over it and takes the keys.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Overlay {
    None,
    Help,
    /// Shall this job be cancelled?
    Cancel {
        id: JobId,
        name: String,
    },
}

/// Something that can be seen, or not, where the console is now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Part {
    Status,
    Counts,
    Rows,
    Recent,
    Nodes,
    Pools,
    Job,
    Why,
    Log,
}

/// What was told after something was done; until the next key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Notice {
    pub text: String,
    pub bad: bool,
}

/// An entry of the history worth a line on the overview.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Recent {
    pub tenant: String,
    pub event: Event,
}

/// See the module; [`super::update()`] changes it, [`super::view()`] draws it.
#[derive(Clone, Debug)]
pub struct Model {
    pub(crate) settings: Settings,
    pub(crate) columns: u16,
    pub(crate) rows: u16,
    pub(crate) now_ms: u64,
    /// The time that the last frame showed.
    drawn_ms: u64,
    dirty: bool,
    pub(crate) screen: Screen,
    pub(crate) overlay: Overlay,
    pub(crate) help: Window,
    /// A filter is being written.
    pub(crate) typing: bool,
    pub(crate) notice: Option<Notice>,
    pub(crate) feeds: Feeds,
    pub(crate) tenants: Tenants,
    pub(crate) jobs: Jobs,
    pub(crate) refresh_asked: bool,
    pub(crate) refreshed_ms: u64,
    pub(crate) recent: VecDeque<Recent>,
    pub(crate) nodes: Option<Vec<NodeView>>,
    pub(crate) node_filter: String,
    pub(crate) node_window: Window,
    pub(crate) pools: Option<Vec<PoolView>>,
    pub(crate) detail: Option<Detail>,
    pub(crate) visits: u64,
    pub(crate) over: bool,
}

impl Model {
    /// An empty console on a terminal of this size.
    #[must_use]
    pub fn new(settings: Settings, columns: u16, rows: u16, at_ms: u64) -> Self {
        let mut model = Self {
            settings,
            columns,
            rows,
            now_ms: at_ms,
            drawn_ms: at_ms,
            dirty: true,
            screen: Screen::Overview,
            overlay: Overlay::None,
            help: Window::default(),
            typing: false,
            notice: None,
            feeds: Feeds::default(),
            tenants: Tenants::default(),
            jobs: Jobs::default(),
            refresh_asked: false,
            refreshed_ms: 0,
            recent: VecDeque::new(),
            nodes: None,
            node_filter: String::new(),
            node_window: Window::default(),
            pools: None,
            detail: None,
            visits: 0,
            over: false,
        };
        model.fit();
        model
    }

    /// Whether something on the screen has changed since the last frame.
    #[must_use]
    pub fn wants_frame(&self) -> bool {
        self.dirty
    }

    /// A frame was drawn.
    pub fn drawn(&mut self) {
        self.dirty = false;
        self.drawn_ms = self.now_ms;
    }

    /// When the passing of time alone changes what is on the screen, in
    /// milliseconds since 1970; `None`: never.
    #[must_use]
    pub fn due_ms(&self) -> Option<u64> {
        let now = self.drawn_ms;
        if self.overlay == Overlay::Help {
            return None;
        }
        match self.screen {
            Screen::Overview => None,
            Screen::Jobs => {
                let ages = self.jobs.visible().flat_map(|job| {
                    [clock::age_due(job.submitted_ms, now), clock::ran_due(job.started_ms, job.ended_ms, now)]
                });
                ages.flatten().min()
            }
            Screen::Nodes => {
                let shown = self.node_window.shown(self.node_rows().len());
                let heard = self.node_rows().into_iter().skip(shown.start).take(shown.len());
                heard.filter_map(|node| heard_due(node.last_heard_ms, now)).min()
            }
            Screen::Job => self.detail.as_ref().and_then(|detail| job_due(detail, now)),
        }
    }

    /// Time has passed; what shows it must be drawn again.
    pub(crate) fn pass(&mut self, at_ms: u64) {
        // A wall clock may be set back.
        self.now_ms = at_ms;
        if at_ms < self.drawn_ms || self.due_ms().is_some_and(|due| due <= at_ms) {
            self.dirty = true;
        }
    }

    /// Something changed; whether that matters depends on where one looks.
    pub(crate) fn touch(&mut self, part: Part) {
        self.dirty |= self.shows(part);
    }

    /// All of the screen changed.
    pub(crate) fn touch_all(&mut self) {
        self.dirty = true;
    }

    fn shows(&self, part: Part) -> bool {
        if self.overlay == Overlay::Help {
            return part == Part::Status;
        }
        let pane = self.detail.as_ref().map(|detail| detail.pane);
        match (self.screen, part) {
            (_, Part::Status)
            | (Screen::Overview, Part::Counts | Part::Recent | Part::Nodes | Part::Pools)
            | (Screen::Jobs, Part::Counts | Part::Rows)
            | (Screen::Nodes, Part::Nodes)
            | (Screen::Job, Part::Job) => true,
            (Screen::Job, Part::Why) => matches!(pane, Some(Pane::All | Pane::Why)),
            (Screen::Job, Part::Log) => matches!(pane, Some(Pane::All | Pane::Log)),
            _ => false,
        }
    }

    /// The nodes that pass the filter.
    pub(crate) fn node_rows(&self) -> Vec<&NodeView> {
        let wanted = self.node_filter.to_ascii_lowercase();
        let passes = |node: &&NodeView| {
            let row = node.row.as_ref();
            wanted.is_empty()
                || row.is_some_and(|row| row.name.contains(&wanted) || row.pool.contains(&wanted))
        };
        self.nodes.iter().flatten().filter(passes).collect()
    }

    pub(crate) fn tell(&mut self, text: impl Into<String>, bad: bool) {
        self.notice = Some(Notice { text: text.into(), bad });
        self.touch(Part::Status);
    }

    /// Windows follow the size of the terminal.
    pub(crate) fn fit(&mut self) {
        let body = layout::body(layout::whole(self.columns, self.rows));
        self.jobs.set_height(layout::list_rows(body));
        self.node_window.height = layout::list_rows(body);
        let nodes = self.node_rows().len();
        self.node_window.fit(nodes);
        self.help.height = usize::from(body.height);
        if let Some(detail) = self.detail.as_mut() {
            let parts = layout::job(body, detail);
            detail.steps.height = layout::below_header(parts.steps);
            detail.steps.fit(detail.step_rows());
            detail.why_rows.height = usize::from(parts.why.height);
            detail.why_rows.fit(detail.why_row_count());
            detail.log.height = layout::below_header(parts.log);
        }
    }
}

/// A node is told of by its age only once that is unusual, so that heartbeats
/// cost no frames.
pub(crate) fn is_late(last_heard_ms: u64, now_ms: u64) -> bool {
    last_heard_ms != 0 && now_ms.saturating_sub(last_heard_ms) >= HEARD_LATE_MS
}

fn heard_due(last_heard_ms: u64, now_ms: u64) -> Option<u64> {
    match last_heard_ms {
        0 => None,
        at if is_late(at, now_ms) => clock::age_due(at, now_ms),
        at => Some(at.saturating_add(HEARD_LATE_MS)),
    }
}

fn job_due(detail: &Detail, now_ms: u64) -> Option<u64> {
    let submitted = detail.view.as_ref().and_then(|view| view.job.as_ref()).map_or(0, |job| job.submitted_ms);
    let mut due = vec![clock::age_due(submitted, now_ms)];
    if let Some(state) = detail.state_row() {
        due.push(clock::ran_due(state.started_ms, state.ended_ms, now_ms));
        let steps = state.steps.iter().skip(detail.steps.top).take(detail.steps.height);
        due.extend(steps.map(|step| clock::ran_due(step.started_ms, step.ended_ms, now_ms)));
    }
    due.into_iter().flatten().min()
}
