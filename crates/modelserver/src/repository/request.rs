//! The optional content of a load request: another configuration, and files.
//!
//! The names of files come from clients and are validated here; nothing is written here.

use std::collections::BTreeMap;

use bytes::Bytes;
use inference::decode_base64;

use crate::error::InferError;

/// The parameter with the configuration as JSON.
const CONFIG: &str = "config";
/// The prefix of the parameters with files: `file:1/model.onnx`.
const FILE: &str = "file:";
/// Maximum number of files in one request.
const MOST_FILES: usize = 256;

/// The optional content of a load request.
#[derive(Debug, Default)]
pub(crate) struct LoadRequest {
    /// The configuration of the model, in JSON, which replaces its `config.pbtxt`.
    pub(crate) config: Option<String>,
    /// Files by their path in the model's folder, which replace that folder.
    pub(crate) files: BTreeMap<String, Bytes>,
}

impl LoadRequest {
    /// Takes a text parameter: `config`, or a file in base64.
    pub(crate) fn text(&mut self, name: &str, value: &str) -> Result<(), InferError> {
        if name == CONFIG {
            self.config = Some(value.to_owned());
            return Ok(());
        }
        let path = file_of(name)?;
        let bytes = decode_base64(value)
            .map_err(|e| InferError::Invalid(format!("parameter `{FILE}{path}` is not base64: {e}")))?;
        self.add(path, bytes.into())
    }

    /// Takes a bytes parameter: a file.
    pub(crate) fn bytes(&mut self, name: &str, value: Bytes) -> Result<(), InferError> {
        let path = file_of(name)?;
        self.add(path, value)
    }

    fn add(&mut self, path: &str, bytes: Bytes) -> Result<(), InferError> {
        check_path(path)?;
        if self.files.len() >= MOST_FILES {
            return Err(InferError::Invalid(format!("a model is loaded from at most {MOST_FILES} files of a request")));
        }
        self.files.insert(path.to_owned(), bytes);
        Ok(())
    }
}

fn file_of(name: &str) -> Result<&str, InferError> {
    name.strip_prefix(FILE).ok_or_else(|| {
        let shown: String = name.chars().take(64).collect();
        InferError::Invalid(format!(
            "a load has no parameter `{shown}`; it has `{CONFIG}` and `{FILE}<version>/<file's name>`"
        ))
    })
}

/// Allows only plain path segments, so that no file is written outside of its model's folder.
fn check_path(path: &str) -> Result<(), InferError> {
    let plain = |part: &str| {
        let known = |byte: u8| byte.is_ascii_alphanumeric() || b"._-+ ".contains(&byte);
        !part.is_empty() && part.len() <= 128 && !part.starts_with('.') && part.bytes().all(known)
    };
    let parts: Vec<_> = path.split('/').collect();
    if (1..=8).contains(&parts.len()) && parts.iter().all(|part| plain(part)) {
        return Ok(());
    }
    let shown: String = path.chars().take(128).collect();
    Err(InferError::Invalid(format!(
        "parameter `{FILE}{}` names no file below the model's folder, as `{FILE}1/model.onnx` does",
        shown.escape_debug()
    )))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_come_in_base64_or_as_they_are_and_only_below_the_models_folder() {
        let mut request = LoadRequest::default();
        request.text("file:1/model.onnx", "AAEC").unwrap();
        request.bytes("file:2/model.onnx", Bytes::from_static(b"\x03")).unwrap();
        request.text("config", "{}").unwrap();
        assert_eq!(request.files["1/model.onnx"].as_ref(), [0, 1, 2]);
        assert_eq!((request.files["2/model.onnx"].as_ref(), request.config.as_deref()), (&[3u8][..], Some("{}")));
        for wrong in ["/etc/passwd", "../x", "1/../../x", "1//x", "1/.ssh", "", "1/x\0", "1/a\\b", "a/b/c/d/e/f/g/h/i"]
        {
            let said = request.text(&format!("file:{wrong}"), "").unwrap_err().to_string();
            assert!(said.contains("below the model's folder"), "{said}");
        }
        let said = request.text("file:1/x", "%").unwrap_err().to_string();
        assert!(said.contains("`file:1/x` is not base64"), "{said}");
        let said = request.text("confg", "").unwrap_err().to_string();
        assert!(said.contains("no parameter `confg`; it has `config` and"), "{said}");
    }
}
