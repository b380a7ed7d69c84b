//! Compiles the .proto files without protoc: protox makes the descriptor set,
//! from which both the native and the simulated code are generated.
use prost::Message as _;
use std::collections::BTreeSet;
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
    let methods = set.file.iter().flat_map(|file| &file.service).flat_map(|service| &service.method);
    let names = methods.flat_map(|method| [method.input_type(), method.output_type()]).collect();
    std::fs::write(out.with_file_name("travelling.rs"), travelling(&names)?)?;
    tonic_build::configure()
        .file_descriptor_set_path(&out)
        .skip_protoc_run()
        // It would name the files below the include path as if they lay below
        // this directory, and what is not there is built again every time.
        .emit_rerun_if_changed(false)
        .btree_map(["."])
        .bytes(["."])
        .compile_protos(FILES, &["proto"])?;
    Ok(())
}

/// A function that names these types.
fn travelling(names: &BTreeSet<&str>) -> Result<String, String> {
    let mut code =
        String::from("/// Names them all.\npub fn every_message(types: &mut impl MessageTypes) {\n");
    for name in names {
        let own = name.strip_prefix(".drumline.v1.").ok_or_else(|| format!("{name} is not ours"))?;
        code.push_str(&format!("    types.add::<crate::v1::{own}>();\n"));
    }
    code.push_str("}\n");
    Ok(code)
}
