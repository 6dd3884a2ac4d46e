//! Crates, and the folders of the two largest ones, may use each other as `ARCHITECTURE.md` says, and in no other way. No file
//! of any crate imports another in a circle.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

#[path = "architecture/imports.rs"]
mod imports;

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use imports::Imports;

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

/// The folders of the gateway. Each imports only from those before it. `config` is a file.
const GATEWAY: [&str; 9] = ["config", "wire", "table", "upstream", "observe", "admit", "choose", "forward", "serve"];

/// The folders of the model server, in the same way.
const MODEL_SERVER: [&str; 14] = [
    "machine",
    "runtime",
    "error",
    "termination",
    "settings",
    "source",
    "onnx",
    "mlflow",
    "python",
    "metrics",
    "run",
    "load",
    "repository",
    "protocol",
];

/// The longest that a file may be, in lines.
const LONGEST: usize = 600;

fn crate_root(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().join(name).join("src/lib.rs")
}

/// The folder, or the file of the root, that a module is in.
fn folder(file: &Path) -> String {
    let first = PathBuf::from(file.components().next().unwrap().as_os_str());
    first.with_extension("").to_str().unwrap().to_owned()
}

fn assert_in_order(imports: &Imports, order: &[&str]) {
    let rank = |file: &Path| {
        let folder = folder(file);
        order.iter().position(|known| *known == folder).unwrap_or_else(|| panic!("{folder} has no place in the order"))
    };
    let mut arrows = 0;
    // The root uses everything.
    for (file, used) in imports.iter().filter(|(file, _)| folder(file) != "lib") {
        for (other, items) in used {
            arrows += 1;
            let (file_name, other_name) = (file.display(), other.display());
            assert!(
                rank(other) <= rank(file),
                "{file_name} imports {items:?} from {other_name}, which stands after it"
            );
        }
    }
    assert!(arrows > 100, "only {arrows} imports were found: the code is read wrongly");
    let there: BTreeSet<_> = imports.keys().map(|file| folder(file)).filter(|folder| folder != "lib").collect();
    assert_eq!(there, order.iter().map(|folder| (*folder).to_owned()).collect(), "a folder is missing or new");
}

#[test]
fn a_folder_of_the_gateway_imports_only_from_those_before_it() {
    assert_in_order(&imports::read(&crate_root("gateway")), &GATEWAY);
}

#[test]
fn a_folder_of_the_model_server_imports_only_from_those_before_it() {
    assert_in_order(&imports::read(&crate_root("modelserver")), &MODEL_SERVER);
}

#[test]
fn no_file_of_any_crate_imports_another_in_a_circle() {
    let mut found = String::new();
    for (name, _) in ARROWS {
        let imports = imports::read(&crate_root(name));
        assert!(imports.values().map(BTreeMap::len).sum::<usize>() > 5, "{name} is read wrongly");
        for circle in imports::circles(&imports) {
            found.push_str(&format!("a circle in {name}:\n"));
            for file in &circle {
                for (other, items) in imports[*file].iter().filter(|(other, _)| circle.contains(other.as_path())) {
                    found.push_str(&format!("  {} imports {items:?} from {}\n", file.display(), other.display()));
                }
            }
        }
    }
    assert!(found.is_empty(), "{found}Move what both need to a file that neither imports.");
}

#[test]
fn no_file_is_too_long() {
    let crates = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let mut folders: Vec<PathBuf> = ["src", "tests", "examples"]
        .into_iter()
        .flat_map(|part| ARROWS.map(|(name, _)| crates.join(name).join(part)))
        .filter(|folder| folder.is_dir())
        .chain(["src", "tests"].map(|part| crates.parent().unwrap().join("python").join(part)))
        .collect();
    let mut read = 0;
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|kind| kind == "rs" || kind == "py") {
                read += 1;
                let lines = fs::read_to_string(&path).unwrap().lines().count();
                assert!(lines <= LONGEST, "{} has {lines} lines, more than {LONGEST}", path.display());
            }
        }
    }
    assert!(read > 400, "only {read} files were found");
}

/// Two files in a scratch crate, and whether they are found to import each other.
fn circles_of(lib: &str, first: &str, second: &str) -> usize {
    let folder = tempfile::tempdir().unwrap();
    for (name, code) in [("lib.rs", lib), ("first.rs", first), ("second.rs", second)] {
        fs::write(folder.path().join(name), code).unwrap();
    }
    imports::circles(&imports::read(&folder.path().join("lib.rs"))).len()
}

#[test]
fn every_way_to_import_is_seen() {
    let lib = "mod first; mod second; pub use first::One; use second as other;";
    let uses_first = "pub struct Two; fn two() { let _ = super::One; }";
    for uses_second in [
        "pub struct One; use crate::second::Two;",
        "pub struct One; use super::{second::{self, Two as Other}};",
        "pub struct One; fn one() { crate::second::Two; }",
        "pub struct One; fn one() { tell!(\"{}\", super::second::Two) }",
        "pub struct One; use crate::other::*;",
        "pub struct One; use crate::second; fn one() { second::Two }",
    ] {
        assert_eq!(circles_of(lib, uses_second, uses_first), 1, "{uses_second}");
    }
    for other in [
        "pub struct One; #[cfg(test)] mod tests { use crate::second::Two; }",
        "pub struct One; /// [`crate::second::Two`]\npub(in crate::first) fn one() {}",
        "pub struct One; use std::second::Two; use self::Inner::two; enum Inner { two }",
    ] {
        assert_eq!(circles_of(lib, other, uses_first), 0, "{other}");
    }
}

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
