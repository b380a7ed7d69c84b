//! The envelope: a job file in JSON with what others call things around it.
//!
//! `tenantId`, `spec`, `inputRefs`, `priority`, `estimateCores` and
//! `expectedRuntime`. What the job file itself says is never overruled; the
//! envelope fills what it leaves out. A body without `spec` is a job file.

use crate::{jobfile, problem::Problem, v1::JobSpec};
use serde::Deserialize;
use serde_json::{Map, Value};
use std::path::Path;

/// A job on its way in.
#[derive(Clone, Debug, PartialEq)]
pub struct Submission {
    /// Empty: the token tells it.
    pub tenant: String,
    /// As [`jobfile::from_json`] reads it.
    pub spec: JobSpec,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct Envelope {
    tenant_id: Option<String>,
    spec: Map<String, Value>,
    #[serde(default)]
    input_refs: Vec<Value>,
    priority: Option<Value>,
    estimate_cores: Option<Value>,
    expected_runtime: Option<Value>,
}

/// Reads either form.
pub fn parse(text: &str) -> Result<Submission, Problem> {
    let is_envelope =
        matches!(serde_json::from_str(text), Ok(Value::Object(body)) if body.contains_key("spec"));
    // A path means nothing here; validation says so.
    let base = Path::new("");
    if !is_envelope {
        return Ok(Submission { tenant: String::new(), spec: jobfile::from_json(text, base)? });
    }
    let envelope: Envelope = jobfile::read_json(text)?;
    let tenant = envelope.tenant_id.clone().unwrap_or_default();
    Ok(Submission { tenant, spec: jobfile::from_value(envelope.filled(), base)? })
}

impl Envelope {
    /// The job file with what it left out.
    fn filled(self) -> Value {
        let Self { mut spec, input_refs, priority, estimate_cores, expected_runtime, .. } = self;
        let mut fill = |key: &str, value: Option<Value>| {
            if let Some(value) = value
                && spec.get(key).is_none_or(Value::is_null)
            {
                spec.insert(key.to_owned(), value);
            }
        };
        fill("priority", priority);
        fill("expected_runtime", expected_runtime);
        if let Some(cores) = estimate_cores {
            for step in list_mut(&mut spec, &["step", "steps"]).into_iter().flatten() {
                if let Value::Object(step) = step
                    && step.get("cores").is_none_or(Value::is_null)
                {
                    step.insert("cores".to_owned(), cores.clone());
                }
            }
        }
        if !input_refs.is_empty() {
            match list_mut(&mut spec, &["input", "inputs"]) {
                Some(inputs) => inputs.extend(input_refs),
                None => {
                    spec.entry("input").or_insert(Value::Array(input_refs));
                }
            }
        }
        Value::Object(spec)
    }
}

/// The list under one of these names.
fn list_mut<'a>(spec: &'a mut Map<String, Value>, names: &[&str]) -> Option<&'a mut Vec<Value>> {
    let name = names.iter().find(|name| spec.contains_key(**name))?;
    spec.get_mut(*name)?.as_array_mut()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_forms_are_the_same_job() {
        let plain = r#"{
            "priority": 7, "expected_runtime": "2m",
            "input": [{"name": "book", "url": "http://books/1",
                "digest": "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"}],
            "step": [{"name": "a", "run": "true", "cores": 2}, {"name": "b", "argv": ["x"], "cores": 0.5}]
        }"#;
        let wrapped = r#"{
            "tenantId": "lab", "priority": 7, "expectedRuntime": 120, "estimateCores": 2,
            "inputRefs": [{"name": "book", "url": "http://books/1",
                "digest": "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"}],
            "spec": {"steps": [{"name": "a", "run": "true"}, {"name": "b", "argv": ["x"], "cores": "0.5"}]}
        }"#;
        let (plain, wrapped) = (parse(plain).unwrap(), parse(wrapped).unwrap());
        assert_eq!((plain.tenant.as_str(), wrapped.tenant.as_str()), ("", "lab"));
        assert_eq!(plain.spec, wrapped.spec);
    }

    #[test]
    fn the_job_file_is_never_overruled() {
        let text = r#"{"priority": 7, "spec": {"priority": 1, "step": [{"run": "true"}]}}"#;
        assert_eq!(parse(text).unwrap().spec.priority, 1);
    }

    #[test]
    fn slips_are_named() {
        for (text, code, field) in [
            (r#"{"spec": {"step": [{"run": "x"}]}, "prioritty": 1}"#, "spec.unknown_key", "prioritty"),
            (r#"{"spec": {"step": [{"run": "x", "core": 1}]}}"#, "spec.unknown_key", "step[0].core"),
            (r#"{"spec": {"step": [{"run": "x"}]}, "name": "n"}"#, "spec.unknown_key", "name"),
            (r#"{"spec": 5}"#, "spec.type", "spec"),
            (r#"{"spec": {}}"#, "spec.missing", "step"),
            (r#"{"spec": {"step": 5}, "estimateCores": 1}"#, "spec.type", "step"),
            (r#"{"spec": {"step": [{"run": "x", "nodes": 1.5}]}}"#, "spec.type", "step[0].nodes"),
            (r#"{"spec": {"input": [{"url": "http://x"}]}}"#, "spec.missing", "input[0].name"),
            (r#"{"spec": {"step": [{"run": "x"}]}, "estimateCores": 0}"#, "spec.size", "step[0].cores"),
            ("{", "spec.syntax", "job file"),
            ("[]", "spec.type", "job file"),
        ] {
            let problem = parse(text).unwrap_err();
            assert_eq!((problem.code.as_str(), problem.field.as_str()), (code, field), "{text}: {problem}");
        }
    }
}
