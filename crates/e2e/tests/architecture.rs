//! The crates may lean on each other as `ARCHITECTURE.md` says, and in no other way.

use std::{collections::BTreeMap, process::Command};

use serde_json::Value;

/// Each crate, and the crates that it may use.
const ARROWS: [(&str, &[&str]); 13] = [
    ("api", &[]),
    ("base", &[]),
    ("inference", &["api"]),
    ("artifact", &["api", "base"]),
    ("wake", &["api", "base"]),
    ("store", &["wake", "api", "base"]),
    ("backend", &["api", "base"]),
    ("control", &["store", "wake", "api", "base"]),
    ("worker", &["store", "wake", "backend", "api", "base"]),
    ("gateway", &["api", "base"]),
    ("modelserver", &["inference", "artifact", "api", "base"]),
    ("cli", &["api", "base", "artifact", "wake", "store", "backend", "control", "worker", "gateway", "modelserver"]),
    ("e2e", &["api"]),
];

#[test]
fn the_crates_use_each_other_only_as_drawn() {
    let output = Command::new(env!("CARGO"))
        .args(["metadata", "--no-deps", "--offline", "--format-version", "1"])
        .current_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/../.."))
        .output()
        .unwrap();
    let metadata: Value = serde_json::from_slice(&output.stdout).unwrap();
    let drawn: BTreeMap<_, _> = ARROWS.into_iter().collect();
    let mut seen = Vec::new();
    for package in metadata["packages"].as_array().unwrap() {
        let name = package["name"].as_str().unwrap().strip_prefix("modelway-").expect("our packages are `modelway-…`");
        let folder = format!("/crates/{name}/Cargo.toml");
        assert!(package["manifest_path"].as_str().unwrap().ends_with(&folder), "{name} is not in its folder");
        let may = drawn.get(name).unwrap_or_else(|| panic!("{name} is not drawn"));
        for dependency in package["dependencies"].as_array().unwrap() {
            // What only tests use draws no arrow.
            if dependency["kind"] == "dev" {
                continue;
            }
            if let Some(used) = dependency["name"].as_str().unwrap().strip_prefix("modelway-") {
                assert!(may.contains(&used), "{name} uses {used}, which is not drawn");
            }
        }
        seen.push(name.to_owned());
    }
    assert_eq!(seen.len(), ARROWS.len(), "drawn and not there, or the other way round: {seen:?}");
}
