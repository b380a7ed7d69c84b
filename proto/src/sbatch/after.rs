//! `--dependency`: which jobs must have ended, and how.

use super::refuse;
use crate::{
    ids::JobId,
    problem::Problem,
    v1::{Dependency, DependencyKind},
};
use std::collections::BTreeMap;

/// What a job waits for.
#[derive(Debug, Default, PartialEq)]
pub struct After {
    /// Jobs known by number, in order, each once.
    pub jobs: Vec<Dependency>,
    /// And all that are of its own name. Who submits looks which these are.
    pub singleton: bool,
}

const REMEDY: &str = "write it like afterok:17:18,afterany:19 or singleton";

/// Reads `afterok:ID[:ID…]`, `afterany:…`, `afternotok:…`, `singleton`, with
/// commas between. `tenant` is whose jobs these are; empty: not known here.
pub fn read(field: &str, text: &str, tenant: &str) -> Result<After, Problem> {
    let wrong = |reason: &str, remedy: &str| refuse(field, text, reason, remedy);
    if text.contains('?') {
        return Err(wrong(
            "any one of several (`?`) cannot be waited for",
            "name what all must be met, with ,",
        ));
    }
    let mut singleton = false;
    let mut jobs: BTreeMap<u64, DependencyKind> = BTreeMap::new();
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
            "aftercorr" => {
                return Err(wrong(
                    "aftercorr (each task after its like) is not covered",
                    "wait for the whole array by afterok",
                ));
            }
            "after" => {
                return Err(wrong(
                    "after (once a job has begun) is not covered",
                    "wait for its end by afterany",
                ));
            }
            "afterburstbuffer" | "expand" => return Err(wrong(&format!("{how} is not covered"), REMEDY)),
            _ => return Err(wrong("is no dependency", REMEDY)),
        };
        for id in ids.split(':') {
            let number = job_number(id, tenant).map_err(|reason| wrong(&reason, REMEDY))?;
            let kind = match jobs.get(&number) {
                None => kind,
                Some(other) => both(*other, kind)
                    .ok_or_else(|| wrong(&format!("job {number} cannot both fail and not"), REMEDY))?,
            };
            jobs.insert(number, kind);
        }
    }
    let jobs = jobs.into_iter();
    let jobs = jobs.map(|(job_number, kind)| Dependency { job_number, kind: kind.into() }).collect();
    Ok(After { jobs, singleton })
}

/// One end that meets both.
fn both(a: DependencyKind, b: DependencyKind) -> Option<DependencyKind> {
    match (a, b) {
        (DependencyKind::Any, other) | (other, DependencyKind::Any) => Some(other),
        (a, b) => (a == b).then_some(a),
    }
}

fn job_number(text: &str, tenant: &str) -> Result<u64, String> {
    if text.contains('_') {
        return Err(format!("`{text}` is a task of an array; only whole jobs can be waited for"));
    }
    let id = JobId::parse(text, tenant).map_err(|_| format!("`{text}` is not a job's id"))?;
    if !tenant.is_empty() && id.tenant != tenant {
        return Err(format!("`{text}` is another tenant's job"));
    }
    Ok(id.number)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(text: &str) -> String {
        match read("--dependency", text, "lab") {
            Ok(after) => {
                let jobs: Vec<String> =
                    after.jobs.iter().map(|job| format!("{:?} {}", job.kind(), job.job_number)).collect();
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
            ("aftercorr:17", "aftercorr (each task after its like) is not covered"),
            ("after:17+5", "after (once a job has begun) is not covered"),
            ("afterok:17_3", "`17_3` is a task of an array; only whole jobs can be waited for"),
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
