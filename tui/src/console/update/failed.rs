//! Questions without an answer: which are asked again, when, and from where.

use super::follow_log;
use crate::console::{
    feeds::{self, Feed},
    message::{Ask, Command},
    model::{Model, Part},
    view::status,
};
use proto::problem::Problem;

/// Asked again after a pause, from where it was; what is refused is told.
pub(super) fn failed(model: &mut Model, ask: Ask, problem: &Problem) -> Vec<Command> {
    let Some(feed) = Feed::of(&ask) else {
        if let Ask::Cancel(id) = ask {
            model.tell(format!("{id} was not cancelled: {}", feeds::one_line(problem)), true);
        }
        return Vec::new();
    };
    if let Ask::Job { visit, .. } | Ask::Why { visit, .. } | Ask::Logs { visit, .. } = &ask {
        if model.detail.as_ref().is_none_or(|detail| detail.visit != *visit) {
            return Vec::new();
        }
        if !feeds::is_away(problem) {
            return refused(model, &ask, problem);
        }
    }
    let now_ms = model.now_ms;
    let told = status(model);
    let after_ms = model.feeds.failed(feed, problem, now_ms);
    if told != status(model) {
        model.touch(Part::Status);
    }
    let again = match ask {
        Ask::Events { tenant, from_seq } => {
            let from_seq = model.tenants.get_mut(&tenant).map_or(from_seq, |tenant| tenant.next_seq);
            Ask::Events { tenant, from_seq }
        }
        Ask::Logs { .. } => match model.detail.as_ref() {
            Some(detail) => follow_log(detail),
            None => return Vec::new(),
        },
        Ask::Refresh(ids) => {
            model.jobs.still_stale(&ids);
            Ask::Refresh(model.jobs.take_stale())
        }
        same => same,
    };
    vec![again.after(after_ms)]
}

/// The server says no to a question about the open job.
fn refused(model: &mut Model, ask: &Ask, problem: &Problem) -> Vec<Command> {
    let text = feeds::one_line(problem);
    let Some(detail) = model.detail.as_mut() else { return Vec::new() };
    match ask {
        Ask::Job { .. } => {
            detail.asked = false;
            detail.problem = Some(text);
            model.touch(Part::Job);
        }
        Ask::Why { .. } => detail.why_asked = false,
        _ => {
            detail.log.followed = false;
            model.tell(format!("the log: {text}"), true);
        }
    }
    Vec::new()
}
