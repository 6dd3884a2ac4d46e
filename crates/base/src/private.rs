//! Files and folders that only their owner can read.

use std::{
    fs::{DirBuilder, File, OpenOptions},
    io,
    os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt},
    path::Path,
};

/// Readable and writable by the owner only.
const MODE: u32 = 0o600;

/// Creates a folder and its parents if they do not exist. An existing folder keeps its mode, because it may be shared,
/// such as `/tmp`.
///
/// # Errors
/// Any error of the operating system.
pub fn folder(path: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(path)
}

/// Options that create a file as private. The caller adds how to open it.
#[must_use]
pub fn options() -> OpenOptions {
    let mut options = OpenOptions::new();
    options.mode(MODE);
    options
}

/// Opens an empty file for writing: a new one, or an existing one, which is made private if we own it.
///
/// # Errors
/// Any error of the operating system.
pub fn create(path: &Path) -> io::Result<File> {
    restrict(options().write(true).create(true).truncate(true).open(path)?)
}

/// Opens a file for appending: a new one, or an existing one, which is made private if we own it.
///
/// # Errors
/// Any error of the operating system.
pub fn append(path: &Path) -> io::Result<File> {
    restrict(options().append(true).create(true).open(path)?)
}

/// Makes a file private that an earlier version created as readable by all. Does not change a device or a pipe, such as
/// `/dev/stdout`, or the file of another user, who alone may change its mode.
fn restrict(file: File) -> io::Result<File> {
    let metadata = file.metadata()?;
    let mut permissions = metadata.permissions();
    if metadata.is_file() && permissions.mode() & 0o777 != MODE {
        permissions.set_mode(MODE);
        match file.set_permissions(permissions) {
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {}
            changed => changed?,
        }
    }
    Ok(file)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_their_owners_alone_also_those_that_were_not() {
        let folder = tempfile::tempdir().expect("a folder");
        let mode = |path: &Path| std::fs::metadata(path).expect("it is there").permissions().mode() & 0o777;
        let path = folder.path().join("new");
        drop(create(&path).expect("made"));
        assert_eq!(mode(&path), 0o600);
        for open in [create, append] {
            std::fs::set_permissions(&path, PermissionsExt::from_mode(0o644)).expect("changed");
            drop(open(&path).expect("opened"));
            assert_eq!(mode(&path), 0o600);
        }
    }

    #[test]
    fn a_new_folder_is_its_owners_alone() {
        let above = tempfile::tempdir().expect("a folder");
        std::fs::set_permissions(above.path(), PermissionsExt::from_mode(0o755)).expect("changed");
        let mode = |path: &Path| std::fs::metadata(path).expect("it is there").permissions().mode() & 0o777;
        let path = above.path().join("a/b");
        for _ in 0..2 {
            folder(&path).expect("made");
            assert_eq!((mode(&path), mode(&above.path().join("a")), mode(above.path())), (0o700, 0o700, 0o755));
        }
    }

    #[test]
    fn what_is_no_regular_file_keeps_its_mode() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("pipe");
        let mode = rustix::fs::Mode::from_raw_mode(0o600);
        rustix::fs::mknodat(rustix::fs::CWD, &path, rustix::fs::FileType::Fifo, mode, 0).expect("a pipe");
        std::fs::set_permissions(&path, PermissionsExt::from_mode(0o666)).expect("changed");
        let reader = OpenOptions::new().read(true).write(true).open(&path).expect("a reader");
        for open in [create, append] {
            drop(open(&path).expect("opened"));
            assert_eq!(reader.metadata().expect("it is there").permissions().mode() & 0o777, 0o666);
        }
    }
}
