//! Checks this machine: the data directory, disk space, libraries, tools.

use std::{
    fs,
    os::unix::fs::{MetadataExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
};

use base::config::variable;
use rustix::fs::{Access, access, statvfs};

use super::Check;
use crate::settings::Settings;

/// Less free space than this is a warning.
const LITTLE_BYTES: u64 = 1 << 30;
/// With less free space than this, writes will fail soon.
const TOO_LITTLE_BYTES: u64 = 64 << 20;

pub(super) fn checks(settings: &Settings) -> Vec<Check> {
    vec![
        folder(&settings.data_dir),
        space("disk", &settings.data_dir),
        space("cache disk", &settings.serve.cache.dir),
        onnxruntime(settings),
        tool(
            "uv",
            settings.serve.uv.as_deref(),
            "Without it, the environments of Python models are built by pip, which takes longer: put uv beside modelway",
        ),
        tool("python3", None, "Python models need it: install Python 3"),
    ]
}

fn folder(folder: &Path) -> Check {
    const NAME: &str = "data directory";
    let shown = folder.display();
    let found = match fs::metadata(folder) {
        Ok(found) => found,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            return Check::ok(NAME, format!("{shown} is not there yet; `modelway up` makes it"));
        }
        Err(error) => {
            return Check::failed(NAME, format!("{shown} cannot be read: {error}"), "Choose another with --data-dir");
        }
    };
    if !found.is_dir() {
        return Check::failed(NAME, format!("{shown} is not a directory"), "Choose another with --data-dir");
    }
    if access(folder, Access::READ_OK | Access::WRITE_OK | Access::EXEC_OK).is_err() {
        let advice = format!("Give it to this user, or run as its owner (user {})", found.uid());
        return Check::failed(NAME, format!("{shown} cannot be written by this user"), advice);
    }
    let open = open_to_others(folder);
    if let Some(path) = open.first() {
        let detail = format!("{} can be read by other users, with {} more like it", path.display(), open.len() - 1);
        return Check::warning(NAME, detail, format!("chmod -R go= {shown}"));
    }
    Check::ok(NAME, format!("{shown} is private and can be written"))
}

/// Files with secrets or predictions that other users can read. The directory itself may be shared, such as `/tmp`.
fn open_to_others(folder: &Path) -> Vec<PathBuf> {
    let parts = ["modelway.db", "modelway.db-wal", "replicas", "sockets", "predictions", "gateway"];
    let is_open = |path: &PathBuf| fs::metadata(path).is_ok_and(|found| found.permissions().mode() & 0o077 != 0);
    if fs::metadata(folder).is_ok_and(|found| found.permissions().mode() & 0o011 == 0) {
        return Vec::new();
    }
    parts.iter().map(|part| folder.join(part)).filter(is_open).collect()
}

fn space(name: &'static str, folder: &Path) -> Check {
    // The nearest existing folder: the directory will be on its disk.
    let Some(there) = folder.ancestors().find(|folder| folder.is_dir()) else {
        return Check::warning(name, format!("{} is on no disk", folder.display()), "Name an absolute path");
    };
    let found = match statvfs(there) {
        Ok(found) => found,
        Err(error) => {
            let detail = format!("the space at {} is not known: {error}", there.display());
            return Check::warning(name, detail, "Look with df");
        }
    };
    let free = found.f_bavail.saturating_mul(found.f_frsize);
    let files = (found.f_files > 0).then_some(found.f_favail);
    let detail = format!("{} MiB free at {}", free >> 20, there.display());
    if free < TOO_LITTLE_BYTES || files.is_some_and(|files| files < 100) {
        return Check::failed(name, detail, "Free some space: the database and logs cannot be written on a full disk");
    }
    if free < LITTLE_BYTES {
        return Check::warning(name, detail, "Free some space before it is full");
    }
    Check::ok(name, detail)
}

fn onnxruntime(settings: &Settings) -> Check {
    match modelserver::locate_onnxruntime(settings.serve.onnxruntime.as_deref()) {
        Ok(library) => Check::ok("ONNX Runtime", library.display().to_string()),
        Err(error) => Check::warning("ONNX Runtime", error.to_string(), "ONNX models cannot be served without it"),
    }
}

fn tool(name: &'static str, configured: Option<&Path>, advice: &str) -> Check {
    if let Some(path) = configured {
        return match path.is_file() {
            true => Check::ok(name, path.display().to_string()),
            false => Check::failed(name, format!("serve.{name} is {}, which is not a file", path.display()), advice),
        };
    }
    let beside = std::env::current_exe().ok().and_then(|program| program.parent().map(Path::to_owned));
    let path = variable("PATH").unwrap_or_default();
    let folders = beside.into_iter().chain(std::env::split_paths(&path));
    match folders.map(|folder| folder.join(name)).find(|program| program.is_file()) {
        Some(program) => Check::ok(name, program.display().to_string()),
        None => Check::warning(name, "not found next to modelway or in PATH", advice),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::Grade;

    #[test]
    fn a_data_directory_that_cannot_be_used_or_is_open_is_told_of() {
        let above = tempfile::tempdir().expect("a folder");
        assert_eq!(folder(&above.path().join("new")).grade, Grade::Ok);
        let file = above.path().join("file");
        fs::write(&file, "").expect("it is written");
        assert_eq!(folder(&file).grade, Grade::Failed);
        fs::write(above.path().join("modelway.db"), "").expect("it is written");
        for (mode, grade) in [(0o700, Grade::Ok), (0o755, Grade::Warning)] {
            fs::set_permissions(above.path(), fs::Permissions::from_mode(mode)).expect("changed");
            fs::set_permissions(above.path().join("modelway.db"), fs::Permissions::from_mode(0o644)).expect("changed");
            assert_eq!(folder(above.path()).grade, grade, "{mode:o}");
        }
    }

    #[test]
    fn a_tool_that_the_settings_name_must_be_there() {
        assert_eq!(tool("uv", Some(Path::new("/nowhere/uv")), "x").grade, Grade::Failed);
        assert_eq!(tool("no-such-tool", None, "x").grade, Grade::Warning);
    }
}
