//! Finds and opens the ONNX Runtime library, once per process.
//!
//! It is looked for where people put it, in this order: the setting, `ORT_DYLIB_PATH`, beside the executable, the
//! system's library folders, Python's packages. A process has one runtime; the first library that was opened stays.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::{Mutex, PoisonError},
};

use ort::{environment::Environment, logging::LogLevel};

use super::memory;
use crate::error::ServeError;

/// The library, opened.
#[derive(Clone, Debug)]
pub(crate) struct Runtime {
    pub(super) environment: Environment,
    /// Whether sessions can use the memory of [`super::memory`].
    pub(super) shares_memory: bool,
}

/// Opens the library. Later calls get the one that the first opened.
pub(crate) fn runtime(configured: Option<&Path>) -> Result<Runtime, ServeError> {
    static OPEN: Mutex<Option<Runtime>> = Mutex::new(None);
    let mut open = OPEN.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(runtime) = open.as_ref() {
        return Ok(runtime.clone());
    }
    let library = locate(configured)?;
    let refused = |reason: String| {
        ServeError::NoRuntime(format!("{} is no ONNX Runtime that can be used: {reason}", library.display()))
    };
    let environment = ort::init_from(&library)
        .map_err(|e| refused(e.to_string()))?
        .with_name("modelway")
        .with_telemetry(false)
        .build()
        .map_err(|e| refused(e.message().to_owned()))?;
    // What goes wrong comes back as an error, and is told once, where it is handled.
    environment.set_log_level(LogLevel::Fatal);
    tracing::debug!(library = %library.display(), "ONNX Runtime opened");
    let shares_memory = memory::share(&environment);
    Ok(open.insert(Runtime { environment, shares_memory }).clone())
}

/// Where the library is, if there is one.
///
/// # Errors
/// [`ServeError::NoRuntime`], which says how to get it.
pub fn locate(configured: Option<&Path>) -> Result<PathBuf, ServeError> {
    if let Some(path) = configured {
        return at(path).ok_or_else(|| {
            ServeError::NoRuntime(format!("serve.onnxruntime is {}, where no libonnxruntime.so is", path.display()))
        });
    }
    places().iter().find_map(|place| at(place)).ok_or_else(|| {
        ServeError::NoRuntime(
            "ONNX Runtime was not found: `pip install onnxruntime`, then set serve.onnxruntime \
             (MODELWAY__SERVE__ONNXRUNTIME) to its onnxruntime/capi folder, or put libonnxruntime.so beside the executable"
                .to_owned(),
        )
    })
}

/// The library itself, or a folder with it.
fn at(path: &Path) -> Option<PathBuf> {
    if path.is_file() { Some(path.to_owned()) } else { in_folder(path) }
}

/// `libonnxruntime.so` or, as the wheel has it, `libonnxruntime.so.1.22.0`.
fn in_folder(folder: &Path) -> Option<PathBuf> {
    let plain = folder.join("libonnxruntime.so");
    if plain.is_file() {
        return Some(plain);
    }
    let mut found: Vec<_> = entries(folder)
        .filter(|path| path.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b"libonnxruntime.so.")))
        .collect();
    found.sort();
    found.pop()
}

fn places() -> Vec<PathBuf> {
    // The name that other users of the library go by; here it counts after the setting of our own.
    let mut places: Vec<_> = base::config::variable("ORT_DYLIB_PATH").map(PathBuf::from).into_iter().collect();
    let mut python = vec![PathBuf::from("/usr/local/lib"), PathBuf::from("/usr/lib")];
    let executable = std::env::current_exe().ok();
    if let Some(folder) = executable.as_deref().and_then(Path::parent) {
        places.push(folder.to_owned());
        places.push(folder.join("../lib"));
        // A wheel's executable stands in `bin` beside `lib/python3.x`.
        python.insert(0, folder.join("../lib"));
    }
    let machine = format!("/usr/lib/{}-linux-gnu", std::env::consts::ARCH);
    for system in ["/usr/local/lib", "/usr/lib", &machine, "/opt/onnxruntime/lib"] {
        places.push(system.into());
    }
    for lib in python {
        for version in entries(&lib)
            .filter(|path| path.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b"python3")))
        {
            for packages in ["site-packages", "dist-packages"] {
                places.push(version.join(packages).join("onnxruntime/capi"));
            }
        }
    }
    places
}

fn entries(folder: &Path) -> impl Iterator<Item = PathBuf> {
    fs::read_dir(folder).into_iter().flatten().filter_map(|entry| entry.ok().map(|entry| entry.path()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_of_the_wheel_is_enough() {
        let folder = tempfile::tempdir().unwrap();
        assert!(locate(Some(folder.path())).unwrap_err().to_string().contains("serve.onnxruntime"));
        let library = folder.path().join("libonnxruntime.so.1.22.0");
        fs::write(&library, b"").unwrap();
        assert_eq!(locate(Some(folder.path())).unwrap(), library);
        assert_eq!(locate(Some(&library)).unwrap(), library);
    }
}
