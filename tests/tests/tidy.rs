//! Rules on the tree itself.

use std::{
    fs,
    path::{Path, PathBuf},
};

/// Longest source file, in lines.
const MAX_LINES: usize = 500;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..").canonicalize().expect("the workspace is there")
}

fn files(folder: &Path, extension: &str, found: &mut Vec<PathBuf>) {
    let Ok(entries) = fs::read_dir(folder) else { return };
    for entry in entries.flatten() {
        let path = entry.path();
        let name = entry.file_name();
        if path.is_dir() {
            if !["target", ".git", ".koc", ".sqlx"].iter().any(|skip| name == *skip) {
                files(&path, extension, found);
            }
        } else if path.extension().is_some_and(|e| e == extension) {
            found.push(path);
        }
    }
}

fn sources(below: &str) -> Vec<(String, String)> {
    let mut found = Vec::new();
    files(&root().join(below), "rs", &mut found);
    assert!(!found.is_empty(), "{below} has sources");
    found
        .into_iter()
        .map(|path| {
            let text = fs::read_to_string(&path).expect("sources are text");
            (path.strip_prefix(root()).expect("below the root").display().to_string(), text)
        })
        .collect()
}

/// Code without comments and without what stands below `#[cfg(test)]`.
fn code(text: &str) -> impl Iterator<Item = &str> {
    text.lines().take_while(|line| !line.starts_with("#[cfg(test)]")).filter(|line| !line.trim_start().starts_with("//"))
}

#[test]
fn no_source_file_is_longer_than_five_hundred_lines() {
    for (path, text) in sources(".") {
        let lines = text.lines().count();
        assert!(lines <= MAX_LINES, "{path} has {lines} lines");
    }
}

#[test]
fn domain_code_knows_neither_transport_nor_storage_nor_generated_code() {
    for service in ["registry", "budget", "task", "measurement"] {
        for (path, text) in sources(&format!("services/{service}/src")) {
            if !path.contains("/src/domain") {
                continue;
            }
            for line in code(&text) {
                for banned in [
                    "tonic",
                    "sqlx::query",
                    "sqlx::Pg",
                    "tokio",
                    "koc_proto",
                    "pb::",
                    "crate::store",
                    "crate::api",
                    "crate::peer",
                    "crate::flow",
                ] {
                    assert!(!line.contains(banned), "{path} mentions {banned}: {line}");
                }
            }
        }
    }
}

#[test]
fn only_api_peer_and_flow_know_generated_code_and_only_store_knows_sql() {
    for service in ["registry", "budget", "task", "measurement"] {
        for (path, text) in sources(&format!("services/{service}/src")) {
            let within = |module: &str| path.contains(&format!("/src/{module}"));
            for line in code(&text) {
                if !within("store") {
                    assert!(!line.contains("sqlx::query"), "{path} has SQL outside of store: {line}");
                }
                if within("store") {
                    assert!(!line.contains("pb::"), "{path} knows generated code: {line}");
                }
            }
        }
    }
}

#[test]
fn services_do_not_depend_on_each_other() {
    for service in ["registry", "budget", "task", "measurement"] {
        let manifest = fs::read_to_string(root().join(format!("services/{service}/Cargo.toml"))).expect("a manifest");
        let dependencies = manifest.split("[dev-dependencies]").next().expect("a first part");
        for other in ["registry", "budget", "task", "measurement"].iter().filter(|o| **o != service) {
            assert!(!dependencies.contains(&format!("koc-{other}")), "{service} depends on {other}");
        }
    }
}

#[test]
fn no_code_is_left_unfinished() {
    let marks = [
        ["to", "do!("].concat(),
        ["unimple", "mented!("].concat(),
        ["TO", "DO"].concat(),
        ["FIX", "ME"].concat(),
        ["#[ig", "nore"].concat(),
    ];
    for (path, text) in sources(".") {
        for mark in &marks {
            assert!(!text.contains(mark.as_str()), "{path} holds {mark}");
        }
    }
}

#[test]
fn every_migration_comes_after_the_chassis_and_before_the_next() {
    for service in ["registry", "budget", "task", "measurement"] {
        let mut found = Vec::new();
        files(&root().join(format!("services/{service}/migrations")), "sql", &mut found);
        assert!(!found.is_empty(), "{service} has migrations");
        for path in found {
            let name = path.file_name().expect("a file").to_string_lossy().into_owned();
            let version: u32 = name.split('_').next().and_then(|v| v.parse().ok()).expect("a version");
            assert!(version > 1000, "{name} of {service} is not below the chassis's");
        }
    }
}
