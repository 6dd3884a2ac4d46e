//! Checks the type hints of a model before its environment is built, which may take minutes.
//!
//! It uses the default `python3`, which has none of the model's packages: the package's `_check.py` reports only
//! certain mistakes. A failure of the check itself is not an error of the model.

use std::{path::Path, process::Command};

use super::{environment, package};
use crate::ServeError;

/// The exit status for wrong hints.
const WRONG: i32 = 3;
const SCRIPT: &str = "import sys; sys.path.insert(0, sys.argv[1]); from modelway._check import main; \
    sys.exit(main(sys.argv[2]))";

/// Checks the hints of the class in `file`. `cache` is the folder for data that is kept between runs of the server.
///
/// # Errors
/// [`ServeError::Python`] with the same text as when the model is loaded.
pub(crate) fn check_hints(file: &Path, cache: &Path) -> Result<(), ServeError> {
    let Some(python) = environment::python3() else { return Ok(()) };
    let Ok(package) = package::unpack(cache) else { return Ok(()) };
    let told = Command::new(python).args(["-I", "-S", "-X", "utf8", "-c", SCRIPT]).arg(package).arg(file).output();
    match told {
        Ok(told) if told.status.code() == Some(WRONG) => {
            let reason = String::from_utf8_lossy(&told.stdout).into_owned();
            Err(ServeError::Python { path: file.to_owned(), reason })
        }
        Ok(told) => {
            tracing::debug!(file = %file.display(), status = %told.status, "the hints show nothing wrong yet");
            Ok(())
        }
        Err(error) => {
            tracing::debug!(file = %file.display(), %error, "the hints are looked at later");
            Ok(())
        }
    }
}
