//! What this simulator was built of: enough to build it again.

use sha2::{Digest, Sha256};

/// Of the sources, with `+changes` where they had more; `unknown` without git.
pub const COMMIT: &str = env!("DRUMLINE_COMMIT");
/// As `rustc --version` has it.
pub const TOOLCHAIN: &str = env!("DRUMLINE_TOOLCHAIN");

/// SHA-256 of `Cargo.lock`, in hexadecimal.
#[must_use]
pub fn lock_sha256() -> String {
    let lock = include_bytes!(concat!(env!("CARGO_MANIFEST_DIR"), "/../Cargo.lock"));
    Sha256::digest(lock).iter().map(|byte| format!("{byte:02x}")).collect()
}
