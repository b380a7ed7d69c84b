//! A whole server over real gRPC: its starts, and its front door.

mod agents;
mod front;
mod start;
mod support;
mod traffic;
