//! Programs of this machine.

use std::path::{Path, PathBuf};

/// The program of this name on the PATH.
pub(super) fn on_path(name: &str) -> Option<PathBuf> {
    let path = base::config::variable("PATH")?;
    std::env::split_paths(&path).map(|folder| folder.join(name)).find(|program| is_program(program))
}

/// A program that is named by its path, or by its name on the PATH.
pub(super) fn resolve(named: &Path) -> Option<PathBuf> {
    if named.components().count() > 1 {
        return std::path::absolute(named).ok().filter(|path| is_program(path));
    }
    on_path(named.to_str()?)
}

pub(super) fn is_program(path: &Path) -> bool {
    use std::os::unix::fs::PermissionsExt as _;
    path.metadata().is_ok_and(|found| found.is_file() && found.permissions().mode() & 0o111 != 0)
}

/// The interpreter of an environment.
pub(super) fn executable(environment: &Path) -> PathBuf {
    environment.join("bin/python")
}
