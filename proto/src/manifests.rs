//! Which manifests stand.
//!
//! A manifest is what a rank of a task gave, written when its attempt is over. It says
//! nothing of the task: a gang's may take several commits, the last of which completes
//! it, and a user's retry that begins a step anew leaves those of its earlier tries
//! lying until their tasks complete again. So whoever reads manifests asks the task's
//! block first whether it has completed, and then this.

use crate::v1::{ManifestRow, StepState};

/// Whether the manifest of a completed task is of a try that no retry has undone: of the
/// step's generation, or of an earlier one whose completed tasks were kept. Rows of an
/// earlier version do not tell, and are taken for what the task's state says.
#[must_use]
pub fn stands(manifest: &ManifestRow, step: &StepState) -> bool {
    manifest
        .generation
        .is_none_or(|generation| (step.reset_generation..=step.generation).contains(&generation))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_retry_kept_stands_and_what_it_undid_does_not() {
        // Tried again from an earlier step on as the second of four generations.
        let step = StepState { generation: 3, reset_generation: 1, ..StepState::default() };
        let of = |generation| {
            let row = ManifestRow { generation, ..ManifestRow::default() };
            stands(&row, &step)
        };
        assert!(!of(Some(0)), "from before the step began anew");
        assert!(of(Some(1)) && of(Some(2)), "completed, and kept since");
        assert!(of(Some(3)));
        assert!(!of(Some(4)), "of a retry that the state does not know yet");
        assert!(of(None), "of an earlier version");
        assert!(stands(
            &ManifestRow { generation: Some(0), ..ManifestRow::default() },
            &StepState::default()
        ));
    }
}
