//! Compiles the contracts without protoc, and turns what stands in them beyond shapes into code: validation rules, the scope
//! of each method, the personal fields. A rule that the generator does not know stops the build.

#[path = "build/rules.rs"]
mod rules;

use std::path::{Path, PathBuf};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let root = PathBuf::from(std::env::var("CARGO_MANIFEST_DIR")?);
    let out = PathBuf::from(std::env::var("OUT_DIR")?);
    for folder in ["koc", "google", "buf", "build"] {
        println!("cargo::rerun-if-changed={}", root.join(folder).display());
    }
    println!("cargo::rerun-if-changed=build.rs");

    let mut files = Vec::new();
    collect(&root.join("koc"), &mut files)?;
    files.sort();
    let mut compiler = protox::Compiler::new([&root])?;
    compiler.include_imports(true).include_source_info(true);
    compiler.open_files(&files)?;

    // Encoded from the compiler's own pool: prost-types would drop the options that are extensions.
    std::fs::write(out.join("koc.fds.bin"), compiler.encode_file_descriptor_set())?;
    std::fs::write(out.join("rules.rs"), rules::generate(&compiler.descriptor_pool()))?;
    tonic_prost_build::configure()
        .include_file("koc.rs")
        .codec_path("crate::codec::ValidatingCodec")
        .compile_well_known_types(false)
        .compile_fds(compiler.file_descriptor_set())?;
    Ok(())
}

fn collect(folder: &Path, files: &mut Vec<PathBuf>) -> std::io::Result<()> {
    for entry in std::fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_dir() {
            collect(&path, files)?;
        } else if path.extension().is_some_and(|e| e == "proto") {
            files.push(path);
        }
    }
    Ok(())
}
