//! Of rows what names objects, and nothing else: who looks through all rows of a space
//! passes over argv, notes and events unread.
//!
//! The numbers are those of `rows.proto`, where numbers never change.

use proto::v1::Input;

/// Of a `JobRow`.
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct JobNames {
    #[prost(message, optional, tag = "3")]
    pub spec: Option<SpecNames>,
}

/// Of a `JobSpec`.
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct SpecNames {
    #[prost(message, repeated, tag = "4")]
    pub inputs: Vec<Input>,
}

/// Of a `BlockRow`.
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct BlockNames {
    #[prost(message, repeated, tag = "7")]
    pub ranks: Vec<RankNames>,
}

/// Of a `RankEnd`.
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct RankNames {
    #[prost(message, repeated, tag = "3")]
    pub artifacts: Vec<ArtifactName>,
}

/// Of a `ManifestRow`.
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct ManifestNames {
    #[prost(message, repeated, tag = "5")]
    pub artifacts: Vec<ArtifactName>,
}

/// Of a `CheckpointRow`.
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct CheckpointNames {
    #[prost(message, repeated, tag = "1")]
    pub entries: Vec<EntryNames>,
}

/// Of a `CheckpointEntry`.
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct EntryNames {
    #[prost(message, repeated, tag = "2")]
    pub artifacts: Vec<ArtifactName>,
}

/// Of an `Artifact`.
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct ArtifactName {
    #[prost(string, tag = "3")]
    pub digest: String,
}

#[cfg(test)]
mod tests {
    use super::*;
    use prost::Message;
    use proto::v1::{
        Artifact, BlockRow, CheckpointEntry, CheckpointRow, JobRow, JobSpec, ManifestRow, RankEnd, Step,
    };

    fn read<M: Message + Default>(row: &impl Message) -> M {
        M::decode(row.encode_to_vec().as_slice()).unwrap()
    }

    fn artifacts(of: &str) -> Vec<Artifact> {
        let artifact = |digest| Artifact { path: "out".into(), size_bytes: 5, digest, mode: 0o644 };
        ["a", "b"].map(|last| artifact(format!("{of}-{last}"))).into()
    }

    fn names(artifacts: &[ArtifactName]) -> Vec<&str> {
        artifacts.iter().map(|artifact| artifact.digest.as_str()).collect()
    }

    #[test]
    fn every_name_that_a_row_has_is_read() {
        let input = Input { name: "set".into(), digest: "d".into(), tree: Some(true), ..Input::default() };
        let steps = vec![Step { name: "train".into(), argv: vec!["train".into()], ..Step::default() }];
        let spec = JobSpec { name: "a job".into(), inputs: vec![input.clone()], steps, ..JobSpec::default() };
        let row = JobRow { tenant: "lab".into(), number: 7, spec: Some(spec), ..JobRow::default() };
        assert_eq!(read::<JobNames>(&row).spec.unwrap().inputs, [input]);

        let rank = |rank| RankEnd { rank, artifacts: artifacts("rank"), ..RankEnd::default() };
        let row = BlockRow { generation: 3, ranks: vec![rank(0), rank(1)], ..BlockRow::default() };
        let ranks = read::<BlockNames>(&row).ranks;
        assert_eq!(
            ranks.iter().map(|rank| names(&rank.artifacts)).collect::<Vec<_>>(),
            [["rank-a", "rank-b"], ["rank-a", "rank-b"]]
        );

        let row = ManifestRow { task: 4, epoch: 9, artifacts: artifacts("out"), ..ManifestRow::default() };
        assert_eq!(names(&read::<ManifestNames>(&row).artifacts), ["out-a", "out-b"]);

        let entry =
            CheckpointEntry { label: "12".into(), artifacts: artifacts("kept"), ..Default::default() };
        let entries = read::<CheckpointNames>(&CheckpointRow { entries: vec![entry] }).entries;
        assert_eq!(names(&entries[0].artifacts), ["kept-a", "kept-b"]);
    }
}
