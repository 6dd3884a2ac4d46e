//! What a model wants to be run in: a version of Python, and packages.

use std::{
    fmt::Write as _,
    path::{Path, PathBuf},
};

use sha2::{Digest as _, Sha256};

/// Part of every hash: another number makes every environment anew.
const FORMAT: u32 = 1;
/// What a model wants to be run in.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Wanted {
    /// The version of Python, as `3.11` or `3.11.7`; none takes the `python3` that is there.
    pub(crate) python: Option<String>,
    /// The packages, and pip's options that say where they come from.
    pub(crate) requirements: Vec<Requirement>,
    /// Versions that packages must have if they are installed at all.
    pub(crate) constraints: Vec<Requirement>,
    /// The file that asks for all this.
    pub(crate) file: PathBuf,
}

/// One package, as pip understands it, and where it was asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Requirement {
    /// As in `numpy>=2,<3`, or an option such as `--extra-index-url …`.
    pub(crate) text: String,
    /// The file that asks for it.
    pub(crate) file: PathBuf,
    /// The line in it, from 1.
    pub(crate) line: usize,
}

impl Requirement {
    /// The package's name as the index knows it: lower case, `-` between its parts. Empty for an option.
    pub(crate) fn name(&self) -> String {
        name_of(&self.text)
    }
}

impl Wanted {
    /// The same without packages of these names.
    #[must_use]
    pub(crate) fn without(mut self, names: &[&str]) -> Self {
        self.requirements.retain(|requirement| !names.contains(&requirement.name().as_str()));
        self
    }

    /// The same with a package that nothing in it asks for yet.
    #[must_use]
    pub(super) fn with(mut self, package: &str) -> Self {
        if self.requirements.iter().all(|requirement| requirement.name() != package) {
            let line = Requirement { text: package.to_owned(), file: self.file.clone(), line: 0 };
            self.requirements.push(line);
        }
        self
    }

    /// Names the environment: equal for equal wishes, wherever they are written.
    pub(super) fn hash(&self, base: Option<&Path>) -> String {
        let mut text = format!("format {FORMAT}\n{} {}\n", std::env::consts::OS, std::env::consts::ARCH);
        let _ = writeln!(text, "python {:?} {:?}", self.python, base);
        for (kind, lines) in [("require", &self.requirements), ("constrain", &self.constraints)] {
            let mut lines: Vec<_> = lines.iter().map(|line| format!("{kind} {}\n", line.text)).collect();
            lines.sort_unstable();
            text.push_str(&lines.concat());
        }
        Sha256::digest(text).iter().take(16).fold(String::new(), |mut hex, byte| {
            let _ = write!(hex, "{byte:02x}");
            hex
        })
    }
}

/// The normal name of the package that a requirement asks for; empty for an option.
pub(super) fn name_of(text: &str) -> String {
    if text.starts_with('-') {
        return String::new();
    }
    normal(text.split(|c: char| !is_of_name(c)).next().unwrap_or_default())
}

pub(super) fn is_of_name(c: char) -> bool {
    c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.')
}

/// As the package index compares names: lower case, runs of `-`, `_` and `.` as one `-`.
pub(super) fn normal(name: &str) -> String {
    let lower = name.to_ascii_lowercase();
    lower.split(['-', '_', '.']).filter(|part| !part.is_empty()).collect::<Vec<_>>().join("-")
}
