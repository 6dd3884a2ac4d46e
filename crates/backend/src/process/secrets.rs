//! Reads values of environment variables from files when a replica starts. The values are not stored.

use std::{
    collections::BTreeMap,
    ffi::OsString,
    fs::File,
    io::{self, Read},
    os::unix::{ffi::OsStringExt, fs::OpenOptionsExt},
    path::Path,
};

/// The maximum size of one variable in the kernel, less room for its name.
const MAX_VALUE_BYTES: u64 = 64 * 1024;

/// A file whose content cannot be the value of a variable, with the reason and what to do.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(super) struct Unusable(String);

/// The variables with their values.
///
/// # Errors
/// An [`Unusable`] inside, which contains the variable and the file but never the content.
pub(super) fn read(files: &BTreeMap<String, String>) -> io::Result<Vec<(String, OsString)>> {
    let value = |(name, path): (&String, &String)| match value(Path::new(path)) {
        Ok(value) => Ok((name.clone(), value)),
        Err(reason) => Err(io::Error::other(Unusable(format!(
            "env_from_file: the file of {name}, {path}, {reason}; put the value there on the machine of the replica, \
             or name another file"
        )))),
    };
    files.iter().map(value).collect()
}

fn value(path: &Path) -> Result<OsString, String> {
    // Opening a pipe would block until somebody writes to it.
    let nonblocking = i32::try_from(rustix::fs::OFlags::NONBLOCK.bits()).unwrap_or_default();
    let file = File::options().read(true).custom_flags(nonblocking).open(path);
    let file = file.map_err(|error| {
        if error.kind() == io::ErrorKind::NotFound {
            "is not there".to_owned()
        } else if error.kind() == io::ErrorKind::PermissionDenied {
            "may not be read by the worker's user".to_owned()
        } else {
            format!("cannot be read: {error}")
        }
    })?;
    if !file.metadata().is_ok_and(|metadata| metadata.is_file()) {
        return Err("is no file".to_owned());
    }
    let mut value = Vec::new();
    file.take(MAX_VALUE_BYTES + 1).read_to_end(&mut value).map_err(|error| format!("cannot be read: {error}"))?;
    if value.len() as u64 > MAX_VALUE_BYTES {
        return Err(format!("is larger than {MAX_VALUE_BYTES} bytes"));
    }
    if value.contains(&0) {
        return Err("has a NUL byte, which no environment variable can hold".to_owned());
    }
    if value.last() == Some(&b'\n') {
        value.pop();
        if value.last() == Some(&b'\r') {
            value.pop();
        }
    }
    Ok(OsString::from_vec(value))
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn of(content: &[u8]) -> Result<OsString, String> {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("secret");
        fs::write(&path, content).expect("it is written");
        value(&path)
    }

    #[test]
    fn a_value_is_the_file_without_the_last_line_break() {
        for (content, wanted) in
            [("s3cret", "s3cret"), ("s3cret\n", "s3cret"), ("a\r\n", "a"), ("a\n\n", "a\n"), ("", "")]
        {
            assert_eq!(of(content.as_bytes()), Ok(wanted.into()), "{content:?}");
        }
        assert_eq!(of(b"\xff\xfe").map(OsStringExt::into_vec), Ok(vec![0xff, 0xfe]));
    }

    #[test]
    fn what_cannot_be_a_value_is_said_with_the_variable_and_the_file_and_without_the_content() {
        assert!(of(b"a\0b").is_err_and(|reason| reason.contains("NUL")));
        assert!(of(&vec![b'a'; 70_000]).is_err_and(|reason| reason.contains("larger than")));
        let said = |path: &str| {
            let files = BTreeMap::from([("KEY".to_owned(), path.to_owned())]);
            read(&files).expect_err(path).to_string()
        };
        assert!(said("/nowhere/key").starts_with("env_from_file: the file of KEY, /nowhere/key, is not there;"));
        assert!(said("/tmp").contains("is no file"), "{}", said("/tmp"));
    }
}
