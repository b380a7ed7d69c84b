//! A whole server over real gRPC and HTTP: its starts, and its front door.

mod agents;
mod alerts;
mod conforms;
mod front;
mod given_up;
mod http;
mod log_lanes;
mod outputs;
mod rest;
mod rest_events;
mod rest_run;
mod start;
mod support;
mod tenants;
mod tokens;
mod traffic;
