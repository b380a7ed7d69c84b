//! Compiles the .proto files without protoc: protox makes the descriptor set,
//! from which both the native and the simulated code are generated.
use prost::Message as _;
use std::path::PathBuf;

const FILES: &[&str] = &[
    "drumline/v1/types.proto",
    "drumline/v1/rows.proto",
    "drumline/v1/tenant.proto",
    "drumline/v1/agent.proto",
    "drumline/v1/planning.proto",
    "drumline/v1/store.proto",
];

#[allow(
    clippy::disallowed_methods,
    reason = "a build script runs on the builder's machine, outside the world"
)]
fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo:rerun-if-changed=proto");
    let out = PathBuf::from(std::env::var("OUT_DIR")?).join("drumline.fds");
    let set = protox::compile(FILES, ["proto"])?;
    std::fs::write(&out, set.encode_to_vec())?;
    tonic_build::configure()
        .file_descriptor_set_path(&out)
        .skip_protoc_run()
        .btree_map(["."])
        .bytes(["."])
        .compile_protos(FILES, &["proto"])?;
    Ok(())
}
