//! `--dependency`: which jobs must have ended, and how.

use super::refuse;
use crate::{
    after::read_index,
    ids::JobId,
    problem::Problem,
    v1::{Dependency, DependencyKind},
};
use std::collections::BTreeMap;

/// What a job waits for.
#[derive(Debug, Default, PartialEq)]
pub struct After {
    /// Jobs known by number, and tasks of theirs, in order, each once.
    pub jobs: Vec<Dependency>,
    /// And all that are of its own name. Who submits looks which these are.
    pub singleton: bool,
}

const REMEDY: &str = "write it like afterok:17:18,afterany:19_4,aftercorr:20 or singleton";

/// What is waited for, by job: all of it, one of its tasks, or task by task.
type What = (u64, Option<u64>, bool);

/// Reads `afterok:ID[:ID…]`, `afterany:…`, `afternotok:…`, where an id may be
/// `ID_INDEX`, `aftercorr:ID[:ID…]` and `singleton`, with commas between.
/// `tenant` is whose jobs these are; empty: not known here.
pub fn read(field: &str, text: &str, tenant: &str) -> Result<After, Problem> {
    let wrong = |reason: &str, remedy: &str| refuse(field, text, reason, remedy);
    if text.contains('?') {
        return Err(wrong(
            "any one of several (`?`) cannot be waited for",
            "name what all must be met, with ,",
        ));
    }
    let mut singleton = false;
    let mut jobs: BTreeMap<What, DependencyKind> = BTreeMap::new();
    for part in text.split(',').map(str::trim) {
        let (how, ids) = part.split_once(':').unwrap_or((part, ""));
        let kind = match how.to_ascii_lowercase().as_str() {
            "singleton" if ids.is_empty() => {
                singleton = true;
                continue;
            }
            "afterok" => DependencyKind::Ok,
            "afterany" => DependencyKind::Any,
            "afternotok" => DependencyKind::NotOk,
            "aftercorr" => DependencyKind::Each,
            "after" => {
                return Err(wrong(
                    "after (once a job has begun) is not covered",
                    "wait for its end by afterany",
                ));
            }
            "afterburstbuffer" | "expand" => return Err(wrong(&format!("{how} is not covered"), REMEDY)),
            _ => return Err(wrong("is no dependency", REMEDY)),
        };
        let each = kind == DependencyKind::Each;
        for id in ids.split(':') {
            let (number, index) = named(id, tenant).map_err(|reason| wrong(&reason, REMEDY))?;
            if each && index.is_some() {
                let reason = format!("`{id}` is one task of an array; aftercorr takes each with its like");
                return Err(wrong(&reason, "write aftercorr:ID, or afterok:ID_INDEX"));
            }
            let kind = match jobs.get(&(number, index, each)) {
                None => kind,
                Some(other) => both(*other, kind)
                    .ok_or_else(|| wrong(&format!("job {id} cannot both fail and not"), REMEDY))?,
            };
            jobs.insert((number, index, each), kind);
        }
    }
    let jobs = jobs.into_iter().map(|((job_number, index, _), kind)| Dependency {
        job_number,
        kind: kind.into(),
        index,
        ..Dependency::default()
    });
    Ok(After { jobs: jobs.collect(), singleton })
}

/// One end that meets both.
fn both(a: DependencyKind, b: DependencyKind) -> Option<DependencyKind> {
    match (a, b) {
        (DependencyKind::Any, other) | (other, DependencyKind::Any) => Some(other),
        (a, b) => (a == b).then_some(a),
    }
}

/// `ID` or `ID_INDEX`.
fn named(text: &str, tenant: &str) -> Result<(u64, Option<u64>), String> {
    let (job, index) = match text.split_once('_') {
        Some((job, index)) => (job, Some(read_index(index)?)),
        None => (text, None),
    };
    let id = JobId::parse(job, tenant).map_err(|_| format!("`{text}` is not a job's id"))?;
    if !tenant.is_empty() && id.tenant != tenant {
        return Err(format!("`{text}` is another tenant's job"));
    }
    Ok((id.number, index))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(text: &str) -> String {
        match read("--dependency", text, "lab") {
            Ok(after) => {
                let task = |job: &Dependency| job.index.map_or_else(String::new, |index| format!("_{index}"));
                let jobs = after.jobs.iter();
                let jobs: Vec<String> =
                    jobs.map(|job| format!("{:?} {}{}", job.kind(), job.job_number, task(job))).collect();
                format!("{}{}", jobs.join(", "), if after.singleton { " singleton" } else { "" })
            }
            Err(problem) => problem.reason,
        }
    }

    #[test]
    fn what_maps_is_mapped_and_what_does_not_is_refused() {
        for (text, said) in [
            ("afterok:17", "Ok 17"),
            ("afterok:17:lab-18,afterany:19,afternotok:20", "Ok 17, Ok 18, Any 19, NotOk 20"),
            ("afterok:17,afterany:17", "Ok 17"),
            ("afterok:17,afternotok:17", "job 17 cannot both fail and not"),
            ("singleton,afterany:3", "Any 3 singleton"),
            ("afterok:17?afterok:18", "any one of several (`?`) cannot be waited for"),
            ("aftercorr:17:lab-18", "Each 17, Each 18"),
            ("afterok:17_3,afterany:17_4,afterok:17", "Ok 17, Ok 17_3, Any 17_4"),
            ("afterok:17_3,afternotok:lab-17_3", "job lab-17_3 cannot both fail and not"),
            ("afterok:17_", "`` is not the index of a task"),
            ("afterok:17_[1-3]", "`[1-3]` is not the index of a task"),
            ("aftercorr:17_3", "`17_3` is one task of an array; aftercorr takes each with its like"),
            ("after:17+5", "after (once a job has begun) is not covered"),
            ("afterok:other-17", "`other-17` is another tenant's job"),
            ("afterok:", "`` is not a job's id"),
            ("afterok", "`` is not a job's id"),
            ("17", "is no dependency"),
            ("", "is no dependency"),
            ("expand:3", "expand is not covered"),
        ] {
            assert_eq!(shown(text), said, "{text}");
        }
    }
}
