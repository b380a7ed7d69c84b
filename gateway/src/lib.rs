//! The front door: authentication, the services of tenants and agents, REST, the
//! object place, and the server that holds all parts of one control plane.
//!
//! Architecture invariants: no state of jobs is kept here (the controller
//! writes it, rows tell it); nothing past this crate sees a request that was
//! not checked; every call is bounded in size, in time and in number.

mod agents;
mod alerts;
pub mod auth;
mod config;
mod demand;
mod drumline;
mod expiry;
mod gate;
pub mod limits;
mod meter;
mod notes;
pub mod objects;
mod packing;
mod planner;
mod rest;
mod rows;
mod scaling;
mod schedulers;
pub mod server;
mod shipments;
pub mod storage;
mod trees;
pub mod urls;

pub use config::{
    AlertsConfig, LogsConfig, ObjectsConfig, PoolConfig, PreemptionConfig, ServerConfig, scheduler_numbers,
};
pub use rest::reading;
pub use scaling::{AutoscaleConfig, NodeShape};

pub(crate) use proto::keys::hex_of as hex;
use std::collections::BTreeMap;

/// Puts an entry into a memory of bounded size; a full one forgets all.
pub(crate) fn remember<V>(memory: &mut BTreeMap<String, V>, key: String, value: V) {
    if memory.len() >= limits::SEEN_MAX && !memory.contains_key(&key) {
        memory.clear();
    }
    memory.insert(key, value);
}
