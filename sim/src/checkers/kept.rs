//! Invariant 5, before and after outputs: what clients uploaded is there as long as a job
//! names it that has not expired, by a directory too, or as it counts as stored.

use super::{Checker, Committed, Outcome};
use crate::mirror::Mirror;

pub struct Kept;

impl Checker for Kept {
    fn name(&self) -> &'static str {
        "kept"
    }
    fn invariant(&self) -> u8 {
        5
    }

    fn after(&mut self, _: &Mirror, _: &Committed) -> Result<(), String> {
        Ok(())
    }

    fn end(&mut self, outcome: &Outcome<'_>) -> Result<(), String> {
        let there = |tenant: &str, digest: &str| outcome.objects.contains(&(tenant.into(), digest.into()));
        for (job, row) in outcome.mirror.jobs.iter().filter(|(job, _)| !outcome.mirror.has_expired(job)) {
            let inputs = row.spec.iter().flat_map(|spec| &spec.inputs);
            for input in inputs.filter(|input| input.url.is_empty()) {
                if !there(&job.tenant, &input.digest) {
                    return Err(format!("input {} of {job} is not there: {}", input.name, input.digest));
                }
                let manifest = outcome.manifests.get(&input.digest).filter(|_| input.tree());
                let lines = manifest.into_iter().flat_map(|manifest| manifest.lines());
                for line in lines.filter(|line| line.starts_with(['f', 'x'])) {
                    if line.split('\t').nth(2).is_none_or(|digest| !there(&job.tenant, digest)) {
                        return Err(format!("of input {} of {job} this is not there: {line}", input.name));
                    }
                }
            }
        }
        match outcome.mirror.uploads.keys().find(|(tenant, digest)| !there(tenant, digest)) {
            Some((tenant, digest)) => {
                Err(format!("an upload of {tenant} counts as stored, and is not there: {digest}"))
            }
            None => Ok(()),
        }
    }
}
