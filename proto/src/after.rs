//! What a job comes after: `ok:ID`, `notok:ID`, `any:ID` for a whole job,
//! `ok:ID[4]` or `ok:ID/STEP[4]` for one task of its array, `each:ID` or
//! `each:ID/STEP` for its array task by task.
//!
//! A dependency names a job that has its number already, and a spec is never
//! rewritten: jobs cannot wait for each other in a circle.

use crate::{
    ids::{JobId, NameKind, check_name},
    limits::ARRAY_INDEX_MAX,
    problem::Problem,
    v1::{Dependency, DependencyKind, JobSpec, Step},
};

/// What to write instead.
pub const REMEDY: &str = "write ok:ID, notok:ID or any:ID, ok:ID[4] for one task of its array, or each:ID";

/// Reads one of them; the job's tenant comes along, `tenant` where the id names
/// none. The reason of a refusal is for the caller to put into its own words.
pub fn parse(text: &str, tenant: &str) -> Result<(String, Dependency), String> {
    let (how, rest) = text.split_once(':').ok_or("does not say how the other job must have ended")?;
    let kind = match how {
        "ok" => DependencyKind::Ok,
        "notok" => DependencyKind::NotOk,
        "any" => DependencyKind::Any,
        "each" => DependencyKind::Each,
        _ => return Err("has a word that is none of ok, notok, any, each".to_owned()),
    };
    let (rest, index) = match rest.strip_suffix(']') {
        Some(rest) => {
            let (rest, index) = rest.rsplit_once('[').ok_or("has a ] without its [")?;
            (rest, Some(read_index(index)?))
        }
        None => (rest, None),
    };
    let (id, step) = rest.split_once('/').map_or((rest, ""), |(id, step)| (id, step));
    if rest.contains('/') {
        check_name(NameKind::Step, "after", step).map_err(|problem| problem.reason)?;
    }
    let id = JobId::parse(id, tenant).map_err(|problem| problem.reason)?;
    let read = Dependency { job_number: id.number, kind: kind.into(), step: step.to_owned(), index };
    match flaw(&read) {
        Some((reason, _)) => Err(reason.to_owned()),
        None => Ok((id.tenant, read)),
    }
}

/// Reads the index of an array's task.
pub fn read_index(text: &str) -> Result<u64, String> {
    let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let index = if digits { text.parse().ok() } else { None };
    index
        .filter(|index| *index <= ARRAY_INDEX_MAX)
        .ok_or_else(|| format!("`{text}` is not the index of a task"))
}

/// Writes what [`parse`] reads.
#[must_use]
pub fn format(dependency: &Dependency, tenant: &str) -> String {
    let how = match dependency.kind() {
        DependencyKind::NotOk => "notok",
        DependencyKind::Any => "any",
        DependencyKind::Each => "each",
        DependencyKind::Ok | DependencyKind::Unspecified => "ok",
    };
    let step = if dependency.step.is_empty() { String::new() } else { format!("/{}", dependency.step) };
    let index = dependency.index.map_or_else(String::new, |index| format!("[{index}]"));
    format!("{how}:{}{step}{index}", JobId::new(tenant, dependency.job_number))
}

/// Whether it looks at tasks of the other job, not at its end.
#[must_use]
pub fn by_task(dependency: &Dependency) -> bool {
    dependency.index.is_some() || dependency.kind() == DependencyKind::Each
}

/// What is wrong with one by itself: reason and remedy.
pub(crate) fn flaw(dependency: &Dependency) -> Option<(&'static str, &'static str)> {
    let kind = DependencyKind::try_from(dependency.kind).unwrap_or_default();
    if dependency.job_number == 0 || kind == DependencyKind::Unspecified {
        return Some(("is not a job to wait for", REMEDY));
    }
    if dependency.index.is_some() && kind == DependencyKind::Each {
        let remedy = "write each:ID for all of them, or ok:ID[4] for one";
        return Some(("each task waits for its own like: one index cannot be named", remedy));
    }
    if !dependency.step.is_empty() && !by_task(dependency) {
        let remedy = "write ok:ID for the whole job, or ok:ID/STEP[4] for one task of the step's array";
        return Some(("names a step, but no task of it", remedy));
    }
    None
}

/// The step of a job's own that waits task by task.
pub fn own_array(spec: &JobSpec) -> Result<u32, (&'static str, &'static str)> {
    let mut arrays = arrays(spec);
    match (arrays.next(), arrays.next()) {
        (Some((at, _)), None) => Ok(at),
        (None, _) => Err((
            "this job has no array whose tasks could wait one by one",
            "give the job an array, or wait for the whole job with ok:ID",
        )),
        (Some(_), Some(_)) => Err((
            "this job has several arrays, and which of them is to wait is not said",
            "submit the array that waits as a job of its own",
        )),
    }
}

/// The array of another job that a dependency looks at: the step's place.
pub fn array_of(dependency: &Dependency, spec: &JobSpec, id: &JobId) -> Result<u32, Problem> {
    let refuse = |reason: String, remedy: &str| {
        Problem::new("conflict.dependency", "after", format(dependency, &id.tenant), reason, remedy)
    };
    let names: Vec<&str> = arrays(spec).map(|(_, step)| step.name.as_str()).collect();
    let found = match dependency.step.as_str() {
        "" if names.len() > 1 => {
            let reason = format!("{id} has several arrays: {}", names.join(", "));
            return Err(refuse(reason, "name the one that is meant, as in each:ID/STEP or ok:ID/STEP[4]"));
        }
        "" => arrays(spec).next(),
        name => arrays(spec).find(|(_, step)| step.name == name),
    };
    found.map(|(at, _)| at).ok_or_else(|| match (dependency.step.as_str(), names.as_slice()) {
        (_, []) => {
            refuse(format!("{id} has no array"), "wait for the whole job with ok:ID, notok:ID or any:ID")
        }
        (step, names) => {
            let reason = format!("step {step} of {id} is no array, or there is none of that name");
            refuse(reason, &format!("its arrays are: {}", names.join(", ")))
        }
    })
}

fn arrays(spec: &JobSpec) -> impl Iterator<Item = (u32, &Step)> {
    spec.steps.iter().enumerate().filter(|(_, step)| step.array.is_some()).map(|(at, step)| (at as u32, step))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::array;

    #[test]
    fn what_is_read_is_written_the_same() {
        for (text, whole) in [
            ("ok:lab-3", "ok:lab-3"),
            ("any:4", "any:lab-4"),
            ("notok:other-4", "notok:other-4"),
            ("ok:lab-3[0]", "ok:lab-3[0]"),
            ("any:3/count.2[17]", "any:lab-3/count.2[17]"),
            ("each:lab-3", "each:lab-3"),
            ("each:3/count", "each:lab-3/count"),
        ] {
            let (tenant, read) = parse(text, "lab").unwrap();
            assert_eq!(format(&read, &tenant), whole);
            assert_eq!(by_task(&read), text.contains(['[', '/']) || text.starts_with("each"), "{text}");
        }
    }

    #[test]
    fn what_cannot_be_meant_is_refused() {
        for (text, reason) in [
            ("3", "does not say how the other job must have ended"),
            ("after:3", "has a word that is none of ok, notok, any, each"),
            ("ok:3]", "has a ] without its ["),
            ("ok:3[]", "`` is not the index of a task"),
            ("ok:3[1-4]", "`1-4` is not the index of a task"),
            ("ok:3[1000000000001]", "`1000000000001` is not the index of a task"),
            ("ok:3/count", "names a step, but no task of it"),
            ("each:3[4]", "each task waits for its own like: one index cannot be named"),
        ] {
            assert_eq!(parse(text, "lab").unwrap_err(), reason, "{text}");
        }
        assert!(parse("ok:3/[4]", "lab").is_err());
        assert!(parse("ok:3/a b[4]", "lab").is_err());
        assert!(parse("ok:x[4]", "lab").unwrap_err().starts_with("is not a job id"));
    }

    #[test]
    fn the_array_that_is_meant_is_found_or_asked_for() {
        let step = |name: &str, indexes: &str| Step {
            name: name.into(),
            array: (!indexes.is_empty()).then(|| array::parse(indexes).unwrap()),
            ..Step::default()
        };
        let spec = |steps: &[Step]| JobSpec { steps: steps.to_vec(), ..JobSpec::default() };
        let (one, two) =
            (spec(&[step("a", ""), step("b", "0-3")]), spec(&[step("b", "0-3"), step("c", "1")]));
        let find = |text: &str, spec: &JobSpec| {
            let (tenant, read) = parse(text, "lab").unwrap();
            array_of(&read, spec, &JobId::new(tenant, 3)).map_err(|problem| problem.to_string())
        };
        assert_eq!(
            (find("each:3", &one), find("each:3/b", &one), find("ok:3/c[1]", &two)),
            (Ok(1), Ok(1), Ok(1))
        );
        assert_eq!(
            find("each:3", &two).unwrap_err(),
            "after = each:lab-3: lab-3 has several arrays: b, c; \
             name the one that is meant, as in each:ID/STEP or ok:ID/STEP[4]"
        );
        assert_eq!(
            find("ok:3[0]", &spec(&[step("a", "")])).unwrap_err(),
            "after = ok:lab-3[0]: lab-3 has no array; wait for the whole job with ok:ID, notok:ID or any:ID"
        );
        assert_eq!(
            find("each:3/a", &one).unwrap_err(),
            "after = each:lab-3/a: step a of lab-3 is no array, or there is none of that name; its arrays are: b"
        );
        assert_eq!(
            (own_array(&one), own_array(&two).is_err(), own_array(&spec(&[])).is_err()),
            (Ok(1), true, true)
        );
    }
}
