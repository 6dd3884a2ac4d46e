//! The Python interpreters on this machine, by version.

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::{Mutex, PoisonError},
    time::Instant,
};

use super::{builder::Builder, fault::failed, program::is_program};
use crate::ServeError;

/// The oldest version that the workers' package supports.
const OLDEST: [u32; 2] = [3, 9];
/// Prints the version; `-S` and `-I` make it fast and prevent it from reading the contents of the folder.
const ASK: [&str; 4] = ["-I", "-S", "-c", "import sys; print('.'.join(map(str, sys.version_info[:3])))"];
/// Whether there is a module; `-s`, as a worker is started. Nothing is taken from the working directory, which Python puts
/// first in its path.
const FIND: [&str; 3] = [
    "-s",
    "-c",
    "import sys; sys.path[:] = [path for path in sys.path if path]; import importlib.util; \
     sys.exit(importlib.util.find_spec(sys.argv[1]) is None)",
];
/// No machine has more interpreters that matter.
const MOST: usize = 64;

/// Whether the interpreter has this module. What it has is asked once.
pub(super) fn has(python: &Path, module: &str) -> bool {
    static FOUND: Mutex<BTreeSet<(PathBuf, String)>> = Mutex::new(BTreeSet::new());
    let key = (python.to_owned(), module.to_owned());
    let known = || FOUND.lock().unwrap_or_else(PoisonError::into_inner);
    if known().contains(&key) {
        return true;
    }
    let found = finds(python, module, None);
    if found {
        known().insert(key);
    }
    found
}

fn finds(python: &Path, module: &str, folder: Option<&Path>) -> bool {
    let mut command = Command::new(python);
    if let Some(folder) = folder {
        command.current_dir(folder);
    }
    let command = command.args(FIND).arg(module).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    command.status().is_ok_and(|status| status.success())
}

/// An interpreter of this version: an installed one, otherwise one that `uv` downloads. Instead of `3.11.7` another
/// `3.11` is used if there is no other way, and the log says so.
pub(super) fn of_version(version: &str, file: &Path, builder: &Builder, until: Instant) -> Result<PathBuf, ServeError> {
    let wanted = parts(version).filter(|parts| parts.len() >= 2).ok_or_else(|| {
        let file = file.display();
        failed(format!("{file}: `{version}` is no version of Python: write it as 3.11 or 3.11.7"))
    })?;
    if wanted[..2] < OLDEST[..] {
        let (file, oldest) = (file.display(), dotted(&OLDEST));
        return Err(failed(format!("{file} wants Python {version}, and models here want {oldest} or newer")));
    }
    let mut here: Vec<(Vec<u32>, PathBuf)> = candidates(&wanted).into_iter().filter_map(asked).collect();
    here.sort_by(|a, b| b.0.cmp(&a.0));
    if let Some((_, path)) = here.iter().find(|(found, _)| found.starts_with(&wanted)) {
        return Ok(path.clone());
    }
    let cause = match builder.fetch_python(version, until)? {
        Ok(path) => return Ok(path),
        Err(cause) => cause,
    };
    if let Some((found, path)) = here.iter().find(|(found, _)| found[..2] == wanted[..2]) {
        let found = dotted(found);
        tracing::warn!(file = %file.display(), "Python {version} is not to be had; running with {found}");
        return Ok(path.clone());
    }
    let mut names: Vec<_> =
        here.iter().map(|(found, path)| format!("{} ({})", dotted(found), path.display())).collect();
    names.dedup();
    Err(failed(format!(
        "{file} wants Python {version}, which is not here and could not be fetched ({cause}); there is {there}: install \
         it, or ask for one of these",
        file = file.display(),
        there = if names.is_empty() { "none".to_owned() } else { names.join(", ") },
    )))
}

/// All programs that may be an interpreter; those with the wanted version in their name come first.
fn candidates(wanted: &[u32]) -> Vec<PathBuf> {
    let exact = format!("python{}.{}", wanted[0], wanted[1]);
    let path = base::config::variable("PATH").unwrap_or_default();
    let mut folders: Vec<PathBuf> = std::env::split_paths(&path).collect();
    folders.push(PathBuf::from("/usr/bin"));
    let home = base::config::variable("HOME").map(PathBuf::from);
    let pyenv = base::config::variable("PYENV_ROOT").map(PathBuf::from).or_else(|| Some(home?.join(".pyenv")));
    // pyenv's own links only work for the version that is selected in the folder.
    folders.retain(|folder| pyenv.as_ref().is_none_or(|root| *folder != root.join("shims")));
    if let Some(versions) = pyenv.and_then(|root| root.join("versions").read_dir().ok()) {
        folders.extend(versions.flatten().map(|version| version.path().join("bin")));
    }
    let mut found: Vec<PathBuf> = Vec::new();
    for name in [exact.as_str(), "python3"] {
        for folder in &folders {
            let program = folder.join(name);
            let real = program.canonicalize().unwrap_or_else(|_| program.clone());
            if is_program(&program) && !found.iter().any(|known| known.canonicalize().is_ok_and(|known| known == real))
            {
                found.push(program);
            }
        }
    }
    found.truncate(MOST);
    found
}

/// An interpreter and its version, which it reports.
fn asked(path: PathBuf) -> Option<(Vec<u32>, PathBuf)> {
    let answer = Command::new(&path).args(ASK).stdin(Stdio::null()).stderr(Stdio::null()).output().ok()?;
    let version = parts(String::from_utf8_lossy(&answer.stdout).trim())?;
    (answer.status.success() && version.len() == 3).then_some((version, path))
}

fn parts(version: &str) -> Option<Vec<u32>> {
    version.split('.').map(|part| part.parse().ok()).collect()
}

fn dotted(version: &[u32]) -> String {
    version.iter().map(u32::to_string).collect::<Vec<_>>().join(".")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modules_in_the_working_directory_are_neither_found_nor_run() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir(folder.path().join("only_here")).unwrap();
        for name in ["contextlib", "types", "warnings"] {
            std::fs::write(folder.path().join(name).with_extension("py"), "open('ran', 'w')\n").unwrap();
        }
        let finds = |module| finds(Path::new("python3"), module, Some(folder.path()));
        assert!(finds("json") && !finds("only_here"));
        assert!(!folder.path().join("ran").exists());
    }
}
