//! Digests of files and folders.

use std::{
    fs::{self, File},
    io::{self, Read as _},
    path::{Path, PathBuf},
};

use sha2::{Digest as _, Sha256};

/// Maximum depth of nested folders, which also ends loops of links.
const MAX_DEPTH: usize = 64;

/// The digest of a file or a folder, as `sha256:<64 hex digits>`. Reads everything; blocks.
///
/// For a file it is the SHA-256 of its bytes. For a folder it is the SHA-256 of the sorted lines `<SHA-256 in hex>
/// <path below the folder>
/// `, one for each file. In the shell: `find * -type f -exec sha256sum {} + | LC_ALL=C sort | sha256sum` (which skips
/// hidden files at the top). Files that tools leave next to a model are excluded: see [`is_foreign`].
///
/// # Errors
/// The error of an unreadable file; `InvalidData` for a name that is not UTF-8.
pub fn digest_of(path: &Path) -> io::Result<String> {
    if !fs::metadata(path)?.is_dir() {
        return Ok(prefixed(&hash_file(path)?));
    }
    let hashes: Vec<_> =
        files_below(path)?.into_iter().map(|(name, file)| Ok((hash_file(&file)?, name))).collect::<io::Result<_>>()?;
    Ok(of_files(hashes.iter().map(|(hash, name)| (hash.as_str(), name.as_str()))))
}

/// The digest of a folder whose files have these hashes (in hex) and names.
pub(crate) fn of_files<'f>(files: impl Iterator<Item = (&'f str, &'f str)>) -> String {
    let mut lines: Vec<_> = files.map(|(hash, name)| format!("{hash}  {name}\n")).collect();
    lines.sort_unstable();
    prefixed(&hash_text(&lines.concat()))
}

pub(crate) fn prefixed(hex: &str) -> String {
    format!("sha256:{hex}")
}

/// The hex digits of a given digest.
pub(crate) fn hex_of(digest: &str) -> Option<&str> {
    digest.strip_prefix("sha256:").filter(|hex| {
        hex.len() == 64 && hex.bytes().all(|digit| digit.is_ascii_digit() || (b'a'..=b'f').contains(&digit))
    })
}

pub(crate) fn hash_text(text: &str) -> String {
    hex(&Sha256::digest(text.as_bytes()))
}

/// The SHA-256 of a file's bytes in hex. Blocks.
pub(crate) fn hash_file(path: &Path) -> io::Result<String> {
    let mut file = File::open(path)?;
    let mut hasher = Sha256::new();
    let mut buffer = vec![0; 1 << 17];
    loop {
        match file.read(&mut buffer)? {
            0 => return Ok(hex(&hasher.finalize())),
            read => hasher.update(&buffer[..read]),
        }
    }
}

fn hex(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    bytes.iter().flat_map(|byte| [byte >> 4, byte & 15]).map(|digit| char::from(DIGITS[usize::from(digit)])).collect()
}

/// Whether a folder within a model belongs to another program: Python's compiled files, a Git repository, a virtual
/// environment. They change while the model stays the same.
fn is_foreign(name: &str, folder: &Path) -> bool {
    matches!(name, "__pycache__" | ".git") || folder.join("pyvenv.cfg").is_file()
}

/// Every file in the folder of a model with its relative path, links resolved, unsorted.
pub(crate) fn files_below(folder: &Path) -> io::Result<Vec<(String, PathBuf)>> {
    let mut files = Vec::new();
    let mut folders = vec![(String::new(), folder.to_owned(), 0)];
    while let Some((prefix, folder, depth)) = folders.pop() {
        if depth > MAX_DEPTH {
            let said = format!("{} is over {MAX_DEPTH} folders deep", folder.display());
            return Err(io::Error::new(io::ErrorKind::InvalidData, said));
        }
        for item in fs::read_dir(&folder)? {
            let path = item?.path();
            let Some(name) = path.file_name().and_then(|name| name.to_str()) else {
                let said = format!("the name of {} is not UTF-8", path.display());
                return Err(io::Error::new(io::ErrorKind::InvalidData, said));
            };
            let kind = match fs::metadata(&path) {
                Ok(metadata) => metadata.file_type(),
                // A broken link, as some editors leave them.
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                Err(error) => return Err(error),
            };
            if kind.is_dir() && !is_foreign(name, &path) {
                folders.push((format!("{prefix}{name}/"), path, depth + 1));
            } else if kind.is_file() {
                files.push((format!("{prefix}{name}"), path));
            }
        }
    }
    Ok(files)
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    #[test]
    fn a_digest_is_what_the_shell_says() {
        let folder = tempfile::tempdir().expect("a folder");
        fs::create_dir_all(folder.path().join("sub/deep")).expect("it can be made");
        for (name, text) in [("model.onnx", "m"), ("sub/a b", "x"), ("sub/deep/z", ""), ("a", "y")] {
            fs::write(folder.path().join(name), text).expect("it can be written");
        }
        let shell = |script: &str| {
            let output = Command::new("sh").arg("-c").arg(script).current_dir(&folder).output().expect("sh runs");
            String::from_utf8(output.stdout).expect("it is text")[..64].to_owned()
        };
        let whole = shell("find * -type f -exec sha256sum {} + | LC_ALL=C sort | sha256sum");
        assert_eq!(digest_of(folder.path()).expect("it can be read"), format!("sha256:{whole}"));
        let one = shell("sha256sum model.onnx");
        assert_eq!(digest_of(&folder.path().join("model.onnx")).expect("it can be read"), format!("sha256:{one}"));
    }

    #[test]
    fn what_tools_leave_beside_a_model_is_no_part_of_it() {
        let folder = tempfile::tempdir().expect("a folder");
        let write = |name: &str| {
            let place = folder.path().join(name);
            fs::create_dir_all(place.parent().expect("it is below the folder")).expect("it can be made");
            fs::write(place, name).expect("it can be written");
        };
        write("model.py");
        write("venv.py/helper.py");
        let digest = || digest_of(folder.path()).expect("it can be read");
        let before = digest();
        for foreign in
            ["__pycache__/model.pyc", "venv.py/__pycache__/x", ".git/HEAD", "env/pyvenv.cfg", "env/bin/python"]
        {
            write(foreign);
        }
        std::os::unix::fs::symlink("nowhere", folder.path().join(".#model.py")).expect("a link");
        rustix::fs::mknodat(
            rustix::fs::CWD,
            folder.path().join("pipe"),
            rustix::fs::FileType::Fifo,
            rustix::fs::Mode::RUSR | rustix::fs::Mode::WUSR,
            0,
        )
        .expect("a pipe, which nobody may wait for");
        assert_eq!(digest(), before);
        write("helper.py");
        assert_ne!(digest(), before);
    }

    #[test]
    fn a_loop_of_links_ends() {
        let folder = tempfile::tempdir().expect("a folder");
        std::os::unix::fs::symlink(".", folder.path().join("again")).expect("a link");
        assert!(digest_of(folder.path()).is_err());
    }

    #[test]
    fn only_whole_digests_are_read() {
        let hex = "a".repeat(64);
        assert_eq!(hex_of(&format!("sha256:{hex}")), Some(hex.as_str()));
        for wrong in [hex.clone(), format!("sha256:{}", "A".repeat(64)), "sha256:abc".to_owned(), format!("md5:{hex}")]
        {
            assert_eq!(hex_of(&wrong), None, "{wrong}");
        }
    }
}
