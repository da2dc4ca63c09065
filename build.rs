//! Compiles every `proto/watchdog/v1/*.proto` without `protoc`, and writes the descriptor set that reflection serves.

use std::error::Error;
use std::path::{Path, PathBuf};

use prost::Message;

const PROTO_DIR: &str = "proto/watchdog/v1";
const ENUM: i32 = 14;

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo::rerun-if-changed={PROTO_DIR}");
    let mut files = Vec::new();
    for entry in std::fs::read_dir(PROTO_DIR)? {
        let path = entry?.path();
        if path.extension().is_some_and(|ext| ext == "proto") {
            println!("cargo::rerun-if-changed={}", path.display());
            files.push(path.strip_prefix("proto")?.to_path_buf());
        }
    }
    files.sort();

    let mut compiler = protox::Compiler::new([Path::new("proto")])?;
    compiler.include_imports(true).include_source_info(true).open_files(&files)?;
    let mut set = compiler.file_descriptor_set();

    // In the order of their keys: what is printed as JSON is the same each time.
    let mut builder = tonic_prost_build::configure().btree_map(".watchdog");
    let spoken_by_nodes = ["/peer.proto", "/lease.proto"];
    for file in set.file.iter().filter(|file| !spoken_by_nodes.iter().any(|name| file.name().ends_with(name))) {
        let package = file.package();
        for kind in &file.message_type {
            let message = format!(".{package}.{}", kind.name());
            builder = builder.type_attribute(&message, "#[derive(serde::Serialize)]");
            for field in kind.field.iter().filter(|field| field.r#type == Some(ENUM)) {
                // Programs that read JSON want the word, not the number on the wire.
                let of = field.type_name().rsplit('.').next().unwrap_or_default();
                let attribute = format!("#[serde(serialize_with = \"crate::proto::word::<_, {of}>\")]");
                builder = builder.field_attribute(format!("{message}.{}", field.name()), attribute);
            }
        }
    }
    builder.compile_fds(set.clone())?;

    let out = PathBuf::from(std::env::var("OUT_DIR")?);
    // For the test that every part of the API is explained.
    std::fs::write(out.join("watchdog-commented.bin"), set.encode_to_vec())?;
    // `compile_fds` ignores the builder's own option for this. Comments stay out: reflection has no use for them.
    for file in &mut set.file {
        file.source_code_info = None;
    }
    std::fs::write(out.join("watchdog.bin"), set.encode_to_vec())?;
    Ok(())
}
