//! A folder of this crate imports only from those above it, and no file imports in a circle.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
};

/// The folders, from above to below. `config` is a file that everybody may use; `lib` uses everything.
const ORDER: [&str; 9] = ["config", "wire", "table", "upstream", "observe", "admit", "choose", "forward", "serve"];

/// Every `.rs` file below a folder, tests left out.
fn files(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(files(&path));
        } else if path.extension().is_some_and(|it| it == "rs") && !path.to_str().unwrap().ends_with("_tests.rs") {
            found.push(path);
        }
    }
    found
}

/// `a::{b, c::{d, e}}` as `a::b`, `a::c::d`, `a::c::e`; what follows the path is left out.
fn expand(text: &str, before: &str, into: &mut BTreeSet<String>) {
    let text = text.trim_start();
    if let Some(inner) = text.strip_prefix('{') {
        let (mut depth, mut begun) = (0, 0);
        for (at, letter) in inner.char_indices() {
            match letter {
                '{' => depth += 1,
                ',' if depth == 0 => {
                    expand(&inner[begun..at], before, into);
                    begun = at + 1;
                }
                '}' if depth == 0 => {
                    expand(&inner[begun..at], before, into);
                    return;
                }
                '}' => depth -= 1,
                _ => {}
            }
        }
        return;
    }
    let end = text.find(|letter: char| !letter.is_alphanumeric() && letter != '_').unwrap_or(text.len());
    let name = &text[..end];
    if name.is_empty() {
        return;
    }
    let path = if before.is_empty() { name.to_owned() } else { format!("{before}::{name}") };
    match text[end..].strip_prefix("::") {
        Some(rest) => expand(rest, &path, into),
        None => {
            into.insert(path);
        }
    }
}

/// What a file's code names by `crate::` and `super::`, as `folder/file`.
fn imports(module: &str, code: &str, modules: &BTreeSet<String>) -> BTreeSet<String> {
    let own = code.split("#[cfg(test)]").next().unwrap();
    let code: Vec<_> = own.lines().filter(|line| !line.trim_start().starts_with("//")).collect();
    let code = code.join("\n");
    let folder = module.split('/').next().unwrap();
    let mut paths = BTreeSet::new();
    for (at, _) in code.match_indices("crate::") {
        // Not `pub(crate)`, and not another crate's name that ends so.
        expand(&code[at + "crate::".len()..], "", &mut paths);
    }
    for (at, _) in code.match_indices("super::") {
        expand(&code[at + "super::".len()..], folder, &mut paths);
    }
    let mut used = BTreeSet::new();
    for path in paths {
        let mut pieces = path.split("::");
        let (first, second) = (pieces.next().unwrap(), pieces.next().unwrap_or_default());
        let file = format!("{first}/{second}");
        if modules.contains(&file) {
            used.insert(file);
        } else if modules.contains(first) {
            used.insert(first.to_owned());
        } else {
            panic!("{module} uses {path}, which is in no folder");
        }
    }
    used.remove(module);
    used
}

fn depends(graph: &BTreeMap<String, BTreeSet<String>>, from: &str, on: &str, seen: &mut BTreeSet<String>) -> bool {
    graph[from].iter().any(|used| used == on || (seen.insert(used.clone()) && depends(graph, used, on, seen)))
}

#[test]
fn a_folder_imports_only_from_those_above_it_and_nothing_in_a_circle() {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let module = |path: &Path| path.strip_prefix(&source).unwrap().with_extension("").to_str().unwrap().to_owned();
    let files: Vec<_> = files(&source).into_iter().filter(|path| module(path) != "lib").collect();
    let modules: BTreeSet<_> = files.iter().map(|path| module(path)).collect();
    let mut graph = BTreeMap::new();
    for path in &files {
        let code = fs::read_to_string(path).unwrap();
        assert!(code.lines().count() <= 600, "{} is longer than 600 lines", path.display());
        graph.insert(module(path), imports(&module(path), &code, &modules));
    }
    let rank = |module: &str| {
        let folder = module.split('/').next().unwrap();
        ORDER.iter().position(|known| *known == folder).unwrap_or_else(|| panic!("{folder} has no place in the order"))
    };
    let mut arrows = 0;
    for (module, used) in &graph {
        for other in used {
            arrows += 1;
            assert!(rank(other) <= rank(module), "{module} imports {other}, which stands below it");
            assert!(!depends(&graph, other, module, &mut BTreeSet::new()), "{module} and {other} import each other");
        }
    }
    assert!(arrows > 50, "only {arrows} imports were found: this test reads the code wrongly");
    let folders: BTreeSet<_> = modules.iter().map(|module| module.split('/').next().unwrap()).collect();
    assert_eq!(folders, BTreeSet::from(ORDER), "a folder is missing or empty");
}
