//! gRPC, native or simulated.
pub use tonic;
