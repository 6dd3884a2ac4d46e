//! Files and folders that only their owner may read.

use std::{
    fs::{DirBuilder, File, OpenOptions},
    io,
    os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt},
    path::Path,
};

/// For their owner to read and write.
const MODE: u32 = 0o600;

/// Makes a folder, and those above it, if they are not there. One that is there keeps its mode: it may be one for all, such
/// as `/tmp`.
///
/// # Errors
/// Whatever the machine says.
pub fn folder(path: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(path)
}

/// Options that make a file private where they make one. Say what else the file is opened for.
#[must_use]
pub fn options() -> OpenOptions {
    let mut options = OpenOptions::new();
    options.mode(MODE);
    options
}

/// An empty file to be written: a new one, or the one that is there, made private as far as it is ours.
///
/// # Errors
/// Whatever the machine says.
pub fn create(path: &Path) -> io::Result<File> {
    restrict(options().write(true).create(true).truncate(true).open(path)?)
}

/// A file to be added to: a new one, or the one that is there, made private as far as it is ours.
///
/// # Errors
/// Whatever the machine says.
pub fn append(path: &Path) -> io::Result<File> {
    restrict(options().append(true).create(true).open(path)?)
}

/// Takes a file from everybody else that an earlier version made for all. A device or a pipe, such as `/dev/stdout`, stays as
/// it is, and so does the file of another user, who alone may change who reads it.
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
