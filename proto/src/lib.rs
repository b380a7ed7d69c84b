//! The words of Drumline on the wire and in the store.
//!
//! `v1` is generated from `proto/drumline/v1/*.proto`. Beside it stand what
//! those messages mean to people: ids, the job file, units, array grammar, JSON,
//! the validation that every door applies, and trace files. No IO and no clock in here.

pub mod after;
pub mod array;
pub mod checkpoints;
pub mod envelope;
pub mod estimate;
pub mod fairness;
pub mod gap;
pub mod ids;
pub mod jobfile;
pub mod json;
pub mod keys;
pub mod limits;
pub mod manifests;
pub mod month;
pub mod problem;
pub mod reservations;
pub mod retention;
pub mod sbatch;
pub mod spans;
pub mod trace;
pub mod travelling;
pub mod tree;
pub mod units;
pub mod validate;
pub mod words;

/// Messages, clients and servers generated from the `.proto` files.
pub mod v1 {
    #![allow(
        clippy::all,
        clippy::disallowed_types,
        clippy::disallowed_methods,
        missing_docs,
        unexpected_cfgs,
        reason = "generated code"
    )]
    tonic::include_proto!("drumline.v1");

    /// Serialized descriptors, for gRPC reflection.
    pub const DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/drumline.fds"));
}
