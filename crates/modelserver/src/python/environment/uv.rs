//! `uv`, the program that makes environments: where it is, and one run of it.
//!
//! Never asks anything, never colours, never reads a project's or a user's own configuration of `uv` beyond its
//! environment variables (`UV_INDEX_URL`, proxies, certificates).

use std::{
    collections::VecDeque,
    ffi::OsStr,
    io::BufReader,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use super::{failed, interpreters, io_error, later};
use crate::ServeError;

/// How many of its last lines are kept for an error.
const LINES: usize = 40;
/// How often its end is looked for.
const GLANCE: Duration = Duration::from_millis(20);
const HOW_TO_GET_IT: &str = "`uv`, which builds the environments of Python models, is missing: get it with \
                             `pip install uv`, or say where it is with serve.uv";

/// How `uv` is called.
#[derive(Debug)]
pub(super) struct Uv {
    program: PathBuf,
    first: &'static [&'static str],
}

/// What a run of `uv` said.
#[derive(Debug)]
pub(super) struct Told {
    pub(super) success: bool,
    pub(super) lines: Vec<String>,
}

impl Uv {
    /// The one that is named, else one on the PATH, beside this program, in `~/.local/bin` or `~/.cargo/bin`, or
    /// installed as a package of `python3`.
    pub(super) fn find(named: Option<&Path>) -> Result<Self, ServeError> {
        if let Some(named) = named {
            return match interpreters::resolve(named) {
                Some(program) => Ok(Self { program, first: &[] }),
                None => Err(failed(format!("serve.uv is {}, and that is no program", named.display()))),
            };
        }
        let beside = std::env::current_exe().ok().and_then(|own| own.parent().map(|folder| folder.join("uv")));
        let home = base::config::variable("HOME").map(PathBuf::from);
        let homes = [".local/bin/uv", ".cargo/bin/uv"].into_iter().filter_map(|end| Some(home.as_ref()?.join(end)));
        let found = interpreters::on_path("uv").or_else(|| beside.into_iter().chain(homes).find(|path| path.is_file()));
        if let Some(program) = found {
            return Ok(Self { program, first: &[] });
        }
        let module = interpreters::on_path("python3").map(|program| Self { program, first: &["-m", "uv"] });
        let answers = |uv: &Self| {
            let version = uv.command().arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status();
            version.is_ok_and(|status| status.success())
        };
        module.filter(answers).ok_or_else(|| failed(HOW_TO_GET_IT.to_owned()))
    }

    fn command(&self) -> Command {
        let mut command = Command::new(&self.program);
        command.args(self.first);
        command
    }

    /// The line that it answers to a quick question; `None` if it has no answer.
    pub(super) fn answer(&self, question: &[&str]) -> Option<String> {
        let answer = self.command().args(question).stdin(Stdio::null()).output().ok()?;
        let line = String::from_utf8_lossy(&answer.stdout).trim().to_owned();
        (answer.status.success() && !line.is_empty()).then_some(line)
    }

    /// Runs it to its end, its words in the log, or ends it when the time is over.
    pub(super) fn run<const A: usize, const P: usize>(
        &self,
        arguments: [&str; A],
        paths: [&Path; P],
        until: Instant,
    ) -> Result<Told, ServeError> {
        let mut command = self.command();
        command.args(["--color", "never", "--no-progress", "--no-config"]).args(arguments).args(paths);
        // An environment that somebody works in is not the one to build, and its byte code is to be written.
        for unwanted in ["VIRTUAL_ENV", "CONDA_PREFIX", "PYTHONDONTWRITEBYTECODE", "PYTHONHOME", "PYTHONPATH"] {
            command.env_remove(unwanted);
        }
        let words = |part: &OsStr| part.to_string_lossy().into_owned();
        tracing::debug!(command = %command.get_args().map(words).collect::<Vec<_>>().join(" "), "uv");
        let mut child = command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .map_err(io_error("uv", &self.program))?;
        let listener = child.stderr.take().map(|words| thread::spawn(move || listen(BufReader::new(words))));
        let success = wait(&mut child, until).map_err(io_error("uv", &self.program))?;
        let lines = listener.and_then(|listener| listener.join().ok()).unwrap_or_default();
        let told = Told { success: success == Some(true), lines };
        match success {
            Some(_) => Ok(told),
            None => Err(later(format!("uv did not end in time, and its last words were: {}", told.cause()))),
        }
    }
}

impl Told {
    /// What went wrong, in its own words, as one line.
    pub(super) fn cause(&self) -> String {
        let from = self.lines.iter().position(|line| line.starts_with("error:")).unwrap_or(0);
        let words: Vec<_> = self.lines[from..].iter().map(|line| line.trim()).filter(|line| !line.is_empty()).collect();
        let text = words.join(" ");
        text.strip_prefix("error: ").map_or(text.clone(), str::to_owned)
    }

    /// Whether the network, and not the wish, is to blame.
    pub(super) fn may_pass(&self) -> bool {
        let signs = ["error sending request", "Failed to fetch", "Request failed after", "dns error", "timed out"];
        self.lines.iter().any(|line| signs.iter().any(|sign| line.contains(sign)))
    }
}

/// Its end, good or bad; `None` if it had to be ended.
fn wait(child: &mut Child, until: Instant) -> std::io::Result<Option<bool>> {
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(Some(status.success()));
        }
        if Instant::now() > until {
            child.kill()?;
            child.wait()?;
            return Ok(None);
        }
        thread::sleep(GLANCE);
    }
}

/// Keeps the last lines, and tells the log of the steps.
fn listen(words: impl std::io::BufRead) -> Vec<String> {
    let mut last = VecDeque::with_capacity(LINES);
    for line in words.lines().map_while(Result::ok) {
        let step = ["Resolved", "Prepared", "Installed", "Building", "Downloading", "Bytecode"];
        if step.iter().any(|word| line.trim_start().starts_with(word)) {
            tracing::info!("uv: {}", line.trim());
        }
        if last.len() == LINES {
            last.pop_front();
        }
        last.push_back(line);
    }
    last.into()
}
