//! Weights in files of their own beside a model (`model.onnx.data`).
//!
//! The runtime would map such a file into memory, and the process would end with SIGBUS when somebody shortens it
//! under the loaded model. So the files are read, and the runtime is handed the bytes. Which they are stands in
//! the model; it is searched for the one spelling that protobuf has for such an entry, not parsed.

use std::{
    fs,
    path::{Component, Path, PathBuf},
    sync::Arc,
};

use crate::error::ServeError;

/// The beginning of an entry of `external_data` with the key `location`: what follows is the length of the value.
const LOCATION: &[u8] = b"\x0a\x08location\x12";

/// Files beside a model that are none of its weights.
const KNOWN: [&str; 3] = ["golden.json", "config.pbtxt", "MLmodel"];

/// The files that a model names, as it names them, with what is in them.
pub(super) type Files = Vec<(PathBuf, Arc<[u8]>)>;

/// The names of the files of a model's weights, as it names them: all of them are below its folder.
pub(super) fn names(model: &Path) -> Result<Vec<PathBuf>, ServeError> {
    let Some(folder) = model.parent() else { return Ok(Vec::new()) };
    if !has_more_files(folder, model) {
        return Ok(Vec::new());
    }
    let failed = |path: &Path, reason: String| ServeError::Load { path: path.to_owned(), reason };
    let text = fs::read(model).map_err(|e| failed(model, e.to_string()))?;
    let names = locations(&text);
    for name in &names {
        if !name.components().all(|part| matches!(part, Component::Normal(_) | Component::CurDir)) {
            let reason = format!("its weights are in {}, which is outside of its folder", name.display());
            return Err(failed(model, reason));
        }
    }
    Ok(names)
}

/// Whether a file is a model that needs no files beside it.
pub(crate) fn is_whole(path: &Path) -> bool {
    let is_onnx = path.extension().is_some_and(|ending| ending.eq_ignore_ascii_case("onnx"));
    let is_beside = |name: &&str| path.with_file_name(name).exists();
    is_onnx && !KNOWN.iter().any(is_beside) && names(path).is_ok_and(|names| names.is_empty())
}

/// Reads the files of these names.
pub(super) fn files(model: &Path, names: Vec<PathBuf>) -> Result<Files, ServeError> {
    let read = |name: PathBuf| {
        let path = model.with_file_name(&name);
        match fs::read(&path) {
            Ok(bytes) => Ok((name, bytes.into())),
            Err(e) => Err(ServeError::Load {
                path: model.to_owned(),
                reason: format!("its weights are in {}, which cannot be read: {e}", path.display()),
            }),
        }
    };
    names.into_iter().map(read).collect()
}

/// Most models are alone in their folder, and need not be searched.
fn has_more_files(folder: &Path, model: &Path) -> bool {
    let Ok(entries) = fs::read_dir(folder) else { return false };
    entries.filter_map(Result::ok).any(|entry| {
        let name = entry.file_name();
        Some(name.as_os_str()) != model.file_name() && !KNOWN.iter().any(|known| name == *known)
    })
}

/// Each name once.
fn locations(model: &[u8]) -> Vec<PathBuf> {
    let mut found: Vec<PathBuf> = Vec::new();
    for place in memchr::memmem::find_iter(model, LOCATION) {
        let name = length_delimited(&model[place + LOCATION.len()..]).and_then(|name| str::from_utf8(name).ok());
        if let Some(name) = name.map(PathBuf::from)
            && !found.contains(&name)
        {
            found.push(name);
        }
    }
    found
}

/// A varint and so many bytes.
fn length_delimited(bytes: &[u8]) -> Option<&[u8]> {
    let mut length = 0usize;
    for (place, byte) in bytes.iter().take(3).enumerate() {
        length |= usize::from(byte & 0x7f) << (7 * place);
        if byte & 0x80 == 0 {
            return bytes.get(place + 1..place + 1 + length);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(name: &str) -> Vec<u8> {
        let mut entry = LOCATION.to_vec();
        let length = name.len();
        if length > 127 {
            entry.push(u8::try_from(length & 0x7f).unwrap() | 0x80);
            entry.push(u8::try_from(length >> 7).unwrap());
        } else {
            entry.push(u8::try_from(length).unwrap());
        }
        entry.extend(name.as_bytes());
        entry
    }

    #[test]
    fn the_names_of_files_are_found_once_each() {
        let long = "d/".repeat(100) + "weights";
        let model =
            [b"\x08\x09".to_vec(), entry("a.data"), entry(&long), entry("a.data"), b"location".to_vec()].concat();
        assert_eq!(locations(&model), [PathBuf::from("a.data"), PathBuf::from(&long)]);
        assert!(locations(&entry("cut")[..LOCATION.len() + 2]).is_empty());
    }

    #[test]
    fn a_file_that_is_missing_or_outside_of_the_folder_is_an_error_that_names_it() {
        let folder = tempfile::tempdir().unwrap();
        let model = folder.path().join("model.onnx");
        fs::write(&model, entry("a.data")).unwrap();
        let read = |model: &Path| files(model, names(model)?);
        assert_eq!(read(&model).unwrap().len(), 0, "alone, it is not searched; the runtime says what is missing");
        fs::write(folder.path().join("b.data"), "b").unwrap();
        assert!(read(&model).unwrap_err().to_string().contains("a.data, which cannot be read"));
        fs::write(folder.path().join("a.data"), "a").unwrap();
        let found = read(&model).unwrap();
        assert_eq!((&found[0].0, &found[0].1[..]), (&PathBuf::from("a.data"), &b"a"[..]));
        fs::write(&model, entry("../a.data")).unwrap();
        assert!(read(&model).unwrap_err().to_string().contains("outside of its folder"));
    }
}
