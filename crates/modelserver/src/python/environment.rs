//! The environment of a Python model: an interpreter with the packages that the model asks for.
//!
//! A model says what it wants in `python_env.yaml`, `conda.yaml` or `requirements.txt` beside it. The same wish is
//! built once, with `uv` or else with pip, in a folder named by its hash, and shared by every model and every server that has it.
//! Environments are never changed and never removed here: whoever wants the room back deletes their folders.
//!
//! **Invariant:** an environment in its place is whole: it is built beside, and moved there last.

mod blame;
mod builder;
mod fault;
mod files;
mod interpreters;
mod program;
mod wanted;

use std::{
    fs::{self, File, TryLockError},
    io,
    path::{Path, PathBuf},
    thread,
    time::{Duration, Instant},
};

pub(crate) use wanted::{Requirement, Wanted};

use self::{
    builder::Builder,
    fault::{failed, io_error, later},
    program::{executable, on_path, resolve},
};
use crate::{Config, ServeError};

/// The longest that building may take, or waiting for another server that builds.
const PATIENCE: Duration = Duration::from_mins(30);
/// How often a server that waits for another's build looks again.
const GLANCE: Duration = Duration::from_millis(100);
/// Tensors cross to the model as NumPy arrays, so every environment has it.
const ALWAYS: &str = "numpy";

/// An interpreter that can run a model.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Interpreter {
    /// The executable.
    pub(crate) path: PathBuf,
    /// How it came there, for the log.
    pub(crate) origin: String,
}

/// The interpreter of a model: the one that is named for it (`own`), else the environment that its files ask for
/// (`wanted`), else the one that is named for all models, else `python3`, or an environment with NumPy alone where
/// `python3` has none. Blocks, as [`prepare`] does.
///
/// # Errors
/// Those of `wanted` and [`prepare`]; an interpreter that is none.
pub(crate) fn choose(
    own: Option<&str>,
    wanted: impl FnOnce() -> Result<Option<Wanted>, ServeError>,
    config: &Config,
) -> Result<Interpreter, ServeError> {
    if let Some(own) = own {
        return named(own, "serve.models.NAME.python");
    }
    if let Some(wanted) = wanted()? {
        return prepare(&wanted, &config.python_folder(), config.uv.as_deref());
    }
    match &config.python {
        Some(python) => named(python, "serve.python"),
        None => with_numpy(named("python3", "serve.python")?, config),
    }
}

/// The interpreter, or an environment that has what every model needs.
fn with_numpy(python: Interpreter, config: &Config) -> Result<Interpreter, ServeError> {
    if interpreters::has(&python.path, ALWAYS) {
        return Ok(python);
    }
    let python = python.path;
    tracing::info!("{} has no NumPy, which every model needs: using an environment that has it", python.display());
    let nothing_more = Wanted { file: python, ..Wanted::default() };
    prepare(&nothing_more, &config.python_folder(), config.uv.as_deref())
}

/// The `python3` that is there.
pub(super) fn python3() -> Option<PathBuf> {
    on_path("python3")
}

/// Whether the environment is there, so that [`prepare`] takes no time.
pub(crate) fn is_built(wanted: &Wanted, cache_dir: &Path) -> bool {
    let wanted = wanted.clone().with(ALWAYS);
    let base = if wanted.python.is_some() { None } else { python3() };
    is_whole(&cache_dir.join("environments").join(wanted.hash(base.as_deref())))
}

/// An interpreter that somebody named, by the program or by the folder of its environment.
fn named(python: &str, setting: &str) -> Result<Interpreter, ServeError> {
    let place = Path::new(python);
    let program = if place.is_dir() { executable(place) } else { place.to_owned() };
    match resolve(&program) {
        Some(path) => Ok(Interpreter { path, origin: setting.to_owned() }),
        None => Err(failed(format!(
            "there is no program {}: install Python, or name an interpreter with {setting}",
            program.display()
        ))),
    }
}

/// The interpreter for what is wanted, its environment built if it is not there yet. Blocks, for minutes if
/// packages must be fetched.
///
/// `cache_dir` is the server's cache folder; the environments are in `environments` below it. `uv` is the program
/// that builds; with `None` it is searched, and pip builds where it is not found.
///
/// # Errors
/// [`ServeError::Environment`]: the line that cannot be had, and the last words of the program that builds.
pub(crate) fn prepare(wanted: &Wanted, cache_dir: &Path, uv: Option<&Path>) -> Result<Interpreter, ServeError> {
    prepare_with(wanted, cache_dir, || Builder::find(uv))
}

/// [`prepare`] with the builder that is found when something is to be built.
fn prepare_with(
    wanted: &Wanted,
    cache_dir: &Path,
    builder: impl FnOnce() -> Result<Builder, ServeError>,
) -> Result<Interpreter, ServeError> {
    let wanted = wanted.clone().with(ALWAYS);
    let base = if wanted.python.is_some() { None } else { python3() };
    let hash = wanted.hash(base.as_deref());
    let shelf = std::path::absolute(cache_dir).map_err(io_error("the cache folder", cache_dir))?.join("environments");
    let place = shelf.join(&hash);
    let interpreter = |origin: &str| Interpreter {
        path: executable(&place),
        origin: format!("{origin} {hash} of {}", wanted.file.display()),
    };
    if is_whole(&place) {
        return Ok(interpreter("environment"));
    }
    fs::create_dir_all(&shelf).map_err(io_error("the folder of environments", &shelf))?;
    let _lock = lock(&shelf.join(format!("{hash}.lock")))?;
    if is_whole(&place) {
        return Ok(interpreter("environment"));
    }
    let started = Instant::now();
    let builder = builder()?;
    clear(&shelf, &hash).map_err(io_error("what is left of an environment", &place))?;
    let beside = shelf.join(format!(".{hash}.{}", std::process::id()));
    tracing::info!(file = %wanted.file.display(), environment = %place.display(), "building a Python environment");
    let built = build(&builder, &wanted, base, [&beside, &place])
        .and_then(|()| fs::rename(&beside, &place).map_err(io_error("the environment that was built", &place)));
    if let Err(error) = built {
        let _ = fs::remove_dir_all(&beside);
        return Err(error);
    }
    tracing::info!(environment = %place.display(), seconds = started.elapsed().as_secs(), "the environment is built");
    Ok(interpreter("new environment"))
}

/// Makes the environment in `folder`, from where it is moved to `place`.
fn build(
    builder: &Builder,
    wanted: &Wanted,
    base: Option<PathBuf>,
    [folder, place]: [&Path; 2],
) -> Result<(), ServeError> {
    let until = Instant::now() + PATIENCE;
    let python = match &wanted.python {
        Some(version) => interpreters::of_version(version, &wanted.file, builder, until)?,
        None => base.ok_or_else(|| failed("there is no `python3` on the PATH: install Python".to_owned()))?,
    };
    let told = builder.create(&python, folder, until)?;
    if !told.success {
        return Err(failed(format!("no environment could be made with {}: {}", python.display(), told.cause())));
    }
    let requirements = folder.join("requirements.txt");
    let constraints = folder.join("constraints.txt");
    write_lines(&requirements, &wanted.requirements)?;
    write_lines(&constraints, &wanted.constraints)?;
    let told = builder.install(folder, place, [&requirements, &constraints], until)?;
    if told.success { Ok(()) } else { Err(blame::blame(wanted, builder.name(), &told)) }
}

fn write_lines(path: &Path, lines: &[Requirement]) -> Result<(), ServeError> {
    let text: String = lines.iter().map(|line| format!("{}\n", line.text)).collect();
    fs::write(path, text).map_err(io_error("the list of packages", path))
}

/// Whether an environment is there and its interpreter, which is a link to the one it was made with, still too.
fn is_whole(place: &Path) -> bool {
    place.join("pyvenv.cfg").is_file() && executable(place).is_file()
}

/// Removes what is left of broken environments and broken-off builds. The lock is held.
fn clear(shelf: &Path, hash: &str) -> io::Result<()> {
    for entry in fs::read_dir(shelf)? {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().into_owned();
        if name == hash || name.strip_prefix('.').is_some_and(|name| name.starts_with(hash)) {
            fs::remove_dir_all(entry.path())?;
        }
    }
    Ok(())
}

/// Waits until this server is the only one that builds the environment.
fn lock(path: &Path) -> Result<File, ServeError> {
    let file = File::create(path).map_err(io_error("the lock", path))?;
    let until = Instant::now() + PATIENCE;
    let mut told = false;
    loop {
        match file.try_lock() {
            Ok(()) => return Ok(file),
            Err(TryLockError::Error(source)) => return Err(io_error("the lock", path)(source)),
            Err(TryLockError::WouldBlock) if Instant::now() > until => {
                let minutes = PATIENCE.as_secs() / 60;
                return Err(later(format!("{} was held by another server for {minutes} minutes", path.display())));
            }
            Err(TryLockError::WouldBlock) => {
                if !told {
                    tracing::info!(lock = %path.display(), "another server builds this environment; waiting for it");
                    told = true;
                }
                thread::sleep(GLANCE);
            }
        }
    }
}

#[cfg(test)]
mod tests;
