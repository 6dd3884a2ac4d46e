//! The program that builds environments: `uv`, or `python3 -m venv` and pip where there is no `uv`.
//!
//! Neither asks questions or prints colours. `uv` reads no configuration but its environment variables
//! (`UV_INDEX_URL`, proxies, certificates); pip reads its own configuration, such as `PIP_INDEX_URL` and `pip.conf`.

use std::{
    collections::VecDeque,
    fs,
    io::{self, BufRead, BufReader},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use rustix::process::{Pid, Signal, kill_process_group};

use super::{
    fault::{failed, io_error, later},
    program::{executable, on_path, resolve},
};
use crate::{ServeError, machine::group};

/// How many of its last lines are kept for an error.
const LINES: usize = 40;
/// How often a running program is checked for its end.
const GLANCE: Duration = Duration::from_millis(20);
/// Variables that would make the program install elsewhere, or run other code.
const UNWANTED: [&str; 8] = [
    "VIRTUAL_ENV",
    "CONDA_PREFIX",
    "PYTHONDONTWRITEBYTECODE",
    "PYTHONHOME",
    "PYTHONPATH",
    "PIP_PREFIX",
    "PIP_TARGET",
    "PIP_USER",
];

/// Builds environments.
#[derive(Debug)]
pub(super) enum Builder {
    /// `program` with the arguments `first` is `uv`.
    Uv { program: PathBuf, first: &'static [&'static str] },
    /// `python -m venv`, then the pip that this installs.
    Pip,
}

/// What a program printed.
#[derive(Debug)]
pub(super) struct Told {
    pub(super) success: bool,
    pub(super) lines: Vec<String>,
}

impl Builder {
    /// The `uv` that is named. If none is named: one on the PATH, beside this program, in `~/.local/bin` or
    /// `~/.cargo/bin`, or installed as a package of `python3`; if there is none, pip.
    pub(super) fn find(named: Option<&Path>) -> Result<Self, ServeError> {
        if let Some(named) = named {
            return match resolve(named) {
                Some(program) => Ok(Self::Uv { program, first: &[] }),
                None => Err(failed(format!("serve.uv is {}, and that is no program", named.display()))),
            };
        }
        let beside = std::env::current_exe().ok().and_then(|own| own.parent().map(|folder| folder.join("uv")));
        let home = base::config::variable("HOME").map(PathBuf::from);
        let homes = [".local/bin/uv", ".cargo/bin/uv"].into_iter().filter_map(|end| Some(home.as_ref()?.join(end)));
        let found = on_path("uv").or_else(|| beside.into_iter().chain(homes).find(|path| path.is_file()));
        if let Some(program) = found {
            return Ok(Self::Uv { program, first: &[] });
        }
        if let Some(program) = on_path("python3") {
            let mut version = uv(&program, &["-m", "uv"]);
            version.arg("--version").stdout(Stdio::null()).stderr(Stdio::null());
            if version.status().is_ok_and(|status| status.success()) {
                return Ok(Self::Uv { program, first: &["-m", "uv"] });
            }
        }
        tracing::warn!(
            "`uv` is not installed, so `python3 -m venv` and pip build the environment, which takes longer and cannot \
             fetch another Python version. `pip install uv` installs it; serve.uv names one elsewhere"
        );
        Ok(Self::Pip)
    }

    /// The program's name, for errors.
    pub(super) fn name(&self) -> &'static str {
        match self {
            Self::Uv { .. } => "uv",
            Self::Pip => "pip",
        }
    }

    /// Makes an environment without packages in `folder`.
    pub(super) fn create(&self, python: &Path, folder: &Path, until: Instant) -> Result<Told, ServeError> {
        let mut command = match self {
            Self::Uv { program, first } => {
                let mut command = uv(program, first);
                command.args(["venv", "--relocatable", "--no-project", "--python"]).arg(python);
                command
            }
            Self::Pip => {
                let mut command = Command::new(python);
                command.args(["-m", "venv"]);
                command
            }
        };
        command.arg(folder);
        self.run(command, until)
    }

    /// Installs what the file `requirements` lists into the environment in `folder`, which is moved to `place` later.
    pub(super) fn install(
        &self,
        folder: &Path,
        place: &Path,
        [requirements, constraints]: [&Path; 2],
        until: Instant,
    ) -> Result<Told, ServeError> {
        let python = executable(folder);
        let mut command = match self {
            Self::Uv { program, first } => {
                let mut command = uv(program, first);
                command.args(["pip", "install", "--compile-bytecode", "--python"]).arg(python);
                command
            }
            Self::Pip => {
                let mut command = Command::new(python);
                command.args(["-m", "pip", "install", "--no-input", "--no-color", "--progress-bar", "off"]);
                command.arg("--disable-pip-version-check");
                command
            }
        };
        command.arg("-r").arg(requirements).arg("-c").arg(constraints);
        let told = self.run(command, until)?;
        if told.success && matches!(self, Self::Pip) {
            move_scripts(folder, place).map_err(io_error("the scripts of the environment", folder))?;
        }
        Ok(told)
    }

    /// Fetches an interpreter of this version. Only `uv` can; else the reason is the error.
    pub(super) fn fetch_python(&self, version: &str, until: Instant) -> Result<Result<PathBuf, String>, ServeError> {
        let Self::Uv { program, first } = self else {
            return Ok(Err("only `uv` fetches one, and it is not installed".to_owned()));
        };
        let mut command = uv(program, first);
        command.args(["python", "install", "--no-bin", version]);
        let told = self.run(command, until)?;
        if !told.success {
            return Ok(Err(told.cause()));
        }
        let mut find = uv(program, first);
        find.args(["python", "find", "--managed-python", "--no-project", version]);
        let answer = find.stdin(Stdio::null()).output().map_err(io_error("uv", program))?;
        let path = String::from_utf8_lossy(&answer.stdout).trim().to_owned();
        let found = answer.status.success() && !path.is_empty();
        Ok(if found { Ok(path.into()) } else { Err(String::from_utf8_lossy(&answer.stderr).trim().to_owned()) })
    }

    /// Runs a command and logs its steps; kills it and all that it started when the time is over.
    fn run(&self, mut command: Command, until: Instant) -> Result<Told, ServeError> {
        let program = PathBuf::from(command.get_program());
        let failure = |source| io_error(self.name(), &program)(source);
        without_unwanted(&mut command);
        tracing::debug!(?command, "building");
        let (words, writer) = io::pipe().map_err(failure)?;
        command.stdin(Stdio::null()).stdout(writer.try_clone().map_err(failure)?).stderr(writer);
        let mut child = group::start_in_group(&mut command).map_err(failure)?;
        // Its ends of the pipe stay open with it.
        drop(command);
        let name = self.name();
        let listener = thread::spawn(move || listen(name, BufReader::new(words)));
        let success = wait(&mut child, until).map_err(failure)?;
        let lines = listener.join().unwrap_or_default();
        let told = Told { success: success == Some(true), lines };
        match success {
            Some(_) => Ok(told),
            None => Err(later(format!("{name} did not end in time, and its last words were: {}", told.cause()))),
        }
    }
}

fn without_unwanted(command: &mut Command) {
    for unwanted in UNWANTED {
        command.env_remove(unwanted);
    }
}

/// A command of `uv`.
fn uv(program: &Path, first: &[&str]) -> Command {
    let mut command = Command::new(program);
    without_unwanted(&mut command);
    command.args(first).args(["--color", "never", "--no-progress", "--no-config"]);
    command
}

/// Lets the scripts that pip wrote into `folder` start the interpreter in `place`.
fn move_scripts(folder: &Path, place: &Path) -> io::Result<()> {
    let (from, to) = (folder.display().to_string(), place.display().to_string());
    for entry in fs::read_dir(folder.join("bin"))? {
        let path = entry?.path();
        if path.is_symlink() || !path.is_file() {
            continue;
        }
        match fs::read_to_string(&path) {
            Ok(text) if text.contains(&from) => fs::write(&path, text.replace(&from, &to))?,
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::InvalidData => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

impl Told {
    /// What went wrong, in its own words, as one line.
    pub(super) fn cause(&self) -> String {
        let from = self.lines.iter().position(|line| error_of(line).is_some()).unwrap_or(0);
        let words: Vec<_> = self.lines[from..].iter().map(|line| line.trim()).filter(|line| !line.is_empty()).collect();
        let text = words.join(" ");
        error_of(&text).map_or(text.clone(), |text| text.trim_start().to_owned())
    }

    /// Whether the network is to blame, and not the list of packages.
    pub(super) fn may_pass(&self) -> bool {
        let signs = [
            "error sending request",
            "Failed to fetch",
            "Request failed after",
            "dns error",
            "timed out",
            "connection broken by",
        ];
        self.lines.iter().any(|line| signs.iter().any(|sign| line.contains(sign)))
    }
}

/// What follows `error:`, as `uv` writes it, or `ERROR:`, as pip does.
fn error_of(line: &str) -> Option<&str> {
    line.strip_prefix("error:").or_else(|| line.strip_prefix("ERROR:"))
}

/// Its end, good or bad; `None` if it had to be ended.
fn wait(child: &mut Child, until: Instant) -> io::Result<Option<bool>> {
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(Some(status.success()));
        }
        if Instant::now() > until {
            // What it started, such as a compiler, would keep its output open, and the listener waiting.
            kill_process_group(Pid::from_child(child), Signal::KILL)?;
            child.wait()?;
            return Ok(None);
        }
        thread::sleep(GLANCE);
    }
}

/// Keeps the last lines, and logs the steps.
fn listen(name: &str, words: impl BufRead) -> Vec<String> {
    let steps = [
        "Resolved",
        "Prepared",
        "Installed",
        "Building",
        "Downloading",
        "Bytecode",
        "Collecting",
        "Installing collected",
        "Successfully installed",
    ];
    let mut last = VecDeque::with_capacity(LINES);
    for line in words.lines().map_while(Result::ok) {
        if steps.iter().any(|step| line.trim_start().starts_with(step)) {
            tracing::info!("{name}: {}", line.trim());
        }
        if last.len() == LINES {
            last.pop_front();
        }
        last.push_back(line);
    }
    last.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_build_has_started_ends_with_it_when_the_time_is_over() {
        let begun = Instant::now();
        let mut command = Command::new("sh");
        command.args(["-c", "sleep 60 & wait"]);
        let error = Builder::Pip.run(command, begun + Duration::from_secs(1)).unwrap_err().to_string();
        assert!(error.contains("pip did not end in time"), "{error}");
        assert!(begun.elapsed() < Duration::from_secs(30), "{:?}", begun.elapsed());
    }
}
