//! Files that only their owner may read.

use std::{
    fs::{File, OpenOptions},
    io,
    os::unix::fs::{OpenOptionsExt, PermissionsExt},
    path::Path,
};

/// For their owner to read and write.
const MODE: u32 = 0o600;

/// Options that make a file private where they make one. Say what else the file is opened for.
#[must_use]
pub fn options() -> OpenOptions {
    let mut options = OpenOptions::new();
    options.mode(MODE);
    options
}

/// An empty file to be written: a new one, or the one that is there, made private.
///
/// # Errors
/// Whatever the machine says.
pub fn create(path: &Path) -> io::Result<File> {
    restrict(options().write(true).create(true).truncate(true).open(path)?)
}

/// A file to be added to: a new one, or the one that is there, made private.
///
/// # Errors
/// Whatever the machine says.
pub fn append(path: &Path) -> io::Result<File> {
    restrict(options().append(true).create(true).open(path)?)
}

/// An earlier version, or another hand, may have made it for everybody.
fn restrict(file: File) -> io::Result<File> {
    let mut permissions = file.metadata()?.permissions();
    if permissions.mode() & 0o777 != MODE {
        permissions.set_mode(MODE);
        file.set_permissions(permissions)?;
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
}
