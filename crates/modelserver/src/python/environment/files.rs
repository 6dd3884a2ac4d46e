//! What a model's files ask for: `python_env.yaml`, `conda.yaml`, `requirements.txt`.
//!
//! Each requirement keeps its file and line, so that the error of a failed build can name them. Requirements that the
//! package index cannot provide are refused here, before anything is downloaded.

use std::{fs, io, path::Path};

use serde_yaml_ng::Value;

use super::{
    fault::{failed, io_error},
    wanted::{Requirement, Wanted, name_of},
};
use crate::ServeError;

/// Maximum depth of `-r` includes, which also ends loops.
const MAX_DEPTH: usize = 8;
/// Maximum size of a list of packages, in bytes.
const MAX_BYTES: u64 = 1 << 20;
/// Packages of every conda environment, which these environments do not need or have anyway.
const OF_CONDA: [&str; 5] = ["pip", "setuptools", "wheel", "ca-certificates", "openssl"];
/// The pip options that are allowed in a list of packages; all of them say where packages come from.
const OPTIONS: [&str; 8] =
    ["-i", "--index-url", "--extra-index-url", "-f", "--find-links", "--no-index", "--no-binary", "--only-binary"];

impl Wanted {
    /// What the files beside a model say: `python_env.yaml`, else `conda.yaml`, else `requirements.txt`. `None` if
    /// there is none of them.
    ///
    /// # Errors
    /// [`ServeError::Environment`] names the file, the line and what cannot be done.
    pub(crate) fn of_folder(folder: &Path) -> Result<Option<Self>, ServeError> {
        of_folder(folder)
    }
}

fn of_folder(folder: &Path) -> Result<Option<Wanted>, ServeError> {
    type Read = fn(&Path, &str) -> Result<Wanted, ServeError>;
    let kinds: [(&str, Read); 3] =
        [("python_env.yaml", python_env), ("conda.yaml", conda), ("requirements.txt", requirements)];
    for (name, read) in kinds {
        let file = folder.join(name);
        if let Some(text) = text_of(&file)? {
            return read(&file, &text).map(|wanted| Some(Wanted { file, ..wanted }));
        }
    }
    Ok(None)
}

fn text_of(file: &Path) -> Result<Option<String>, ServeError> {
    match fs::metadata(file) {
        Ok(found) if found.len() > MAX_BYTES => {
            Err(failed(format!("{} has {} bytes, which is no list of packages", file.display(), found.len())))
        }
        Ok(_) => fs::read_to_string(file).map(Some).map_err(io_error("the list of packages", file)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(io_error("the list of packages", file)(error)),
    }
}

fn requirements(file: &Path, text: &str) -> Result<Wanted, ServeError> {
    let mut wanted = Wanted::default();
    read_list(&mut wanted, file, text, false, 0)?;
    Ok(wanted)
}

/// Adds the lines of a file as pip reads it.
fn read_list(wanted: &mut Wanted, file: &Path, text: &str, constrains: bool, depth: usize) -> Result<(), ServeError> {
    let mut lines = text.lines().enumerate();
    while let Some((number, line)) = lines.next() {
        let mut joined = line.trim_end().to_owned();
        while joined.ends_with('\\') {
            joined.pop();
            joined.push_str(lines.next().map_or("", |(_, next)| next.trim()));
        }
        add(wanted, Requirement { text: joined, file: file.to_owned(), line: number + 1 }, constrains, depth)?;
    }
    Ok(())
}

/// Adds one line, or the file that it includes.
fn add(wanted: &mut Wanted, line: Requirement, constrains: bool, depth: usize) -> Result<(), ServeError> {
    let text = without_comment(&line.text).to_owned();
    let line = Requirement { text, ..line };
    let refuse = |why: &str| {
        let (number, file) = (line.line, line.file.display());
        Err(failed(format!("line {number} of {file} (`{}`) {why}", line.text)))
    };
    if line.text.is_empty() {
        return Ok(());
    }
    let Some(option) = option_of(&line.text) else {
        let path = line.text.starts_with(['.', '/', '~']) || line.text.contains("@ file:");
        if path {
            return refuse(
                "is a path of one machine, and environments are built from the package index: put modules beside the \
                 model, or packages on an index",
            );
        }
        if constrains {
            wanted.constraints.push(line)
        } else {
            wanted.requirements.push(line)
        }
        return Ok(());
    };
    let argument = line.text[option.len()..].trim_start_matches(['=', ' ', '\t']);
    match option {
        "-r" | "--requirement" | "-c" | "--constraint" => {
            if depth == MAX_DEPTH {
                return refuse("leads in a circle");
            }
            let next = line.file.with_file_name(argument);
            let Some(text) = text_of(&next)? else { return refuse("names a file that is not there") };
            read_list(
                wanted,
                &next,
                &text,
                constrains || option.starts_with("-c") || option == "--constraint",
                depth + 1,
            )
        }
        "-e" | "--editable" => refuse("is a package that is being worked on, and a model is served from fixed ones"),
        known if OPTIONS.contains(&known) => {
            wanted.requirements.push(line);
            Ok(())
        }
        "--pre" | "--prefer-binary" | "--trusted-host" | "--use-feature" | "--require-hashes" => {
            refuse("is an option that environments cannot be built with: remove it")
        }
        _ => refuse("is no option that pip knows in a list of packages"),
    }
}

/// The option at the beginning of a line.
fn option_of(text: &str) -> Option<&str> {
    let option = text.split(['=', ' ', '\t']).next()?;
    match option {
        // `-rmore.txt`
        short if short.starts_with('-') && !short.starts_with("--") => short.get(..2),
        long if long.starts_with("--") => Some(long),
        _ => None,
    }
}

/// pip treats ` #` as the beginning of a comment, and `#` alone as part of a URL.
fn without_comment(line: &str) -> &str {
    let end = if line.trim_start().starts_with('#') { Some(0) } else { line.find(" #").or_else(|| line.find("\t#")) };
    line[..end.unwrap_or(line.len())].trim()
}

fn python_env(file: &Path, text: &str) -> Result<Wanted, ServeError> {
    let yaml = parsed(file, text)?;
    let mut wanted = Wanted { python: version_of(file, &yaml["python"])?, ..Wanted::default() };
    for part in ["build_dependencies", "dependencies"] {
        for item in list(file, &yaml[part], part)? {
            let Some(item) = item.as_str() else { return Err(odd(file, text, item)) };
            // pip and wheel are for building, which uv does.
            let name = name_of(item);
            if part == "build_dependencies" && (name == "pip" || name == "wheel") {
                continue;
            }
            let line = Requirement { text: item.to_owned(), file: file.to_owned(), line: line_of(text, item) };
            add(&mut wanted, line, false, 0)?;
        }
    }
    Ok(wanted)
}

fn conda(file: &Path, text: &str) -> Result<Wanted, ServeError> {
    let yaml = parsed(file, text)?;
    let mut wanted = Wanted::default();
    let mut foreign = Vec::new();
    for item in list(file, &yaml["dependencies"], "dependencies")? {
        if let Some(package) = item.as_str() {
            // `conda-forge::python=3.11`
            let spec = package.rsplit("::").next().unwrap_or(package).trim();
            let name = name_of(spec.split('=').next().unwrap_or_default());
            match name.as_str() {
                "python" => wanted.python = conda_version(spec),
                name if OF_CONDA.contains(&name) => {}
                _ => foreign.push(format!("line {} (`{package}`)", line_of(text, package))),
            }
            continue;
        }
        for package in list(file, &item["pip"], "pip")? {
            let Some(package) = package.as_str() else { return Err(odd(file, text, package)) };
            let line = Requirement { text: package.to_owned(), file: file.to_owned(), line: line_of(text, package) };
            add(&mut wanted, line, false, 0)?;
        }
    }
    if foreign.is_empty() {
        return Ok(wanted);
    }
    Err(failed(format!(
        "{} asks for packages of conda, and environments are built from the Python package index: {}. Move them under \
         `pip:` by their names there, or name an interpreter that has them with serve.models.NAME.python",
        file.display(),
        foreign.join(", ")
    )))
}

/// The version in `python=3.11`, `python==3.11.7`, `python=3.11.*`; none if any version is allowed.
fn conda_version(spec: &str) -> Option<String> {
    let said = spec.trim_start_matches("python").trim_start_matches(['=', ' ']);
    // `>=3.9` does not determine a version; `3.11.7=h123_0` has a build after it.
    let version = said.split(['=', ',']).next()?.trim().trim_end_matches(".*");
    version.starts_with(|c: char| c.is_ascii_digit()).then(|| version.to_owned())
}

fn version_of(file: &Path, value: &Value) -> Result<Option<String>, ServeError> {
    match value {
        Value::Null => Ok(None),
        Value::String(version) => Ok(Some(version.trim_start_matches('=').trim().to_owned())),
        // Unquoted, 3.10 is the number 3.1, so the meaning is ambiguous.
        Value::Number(_) | Value::Bool(_) | Value::Sequence(_) | Value::Mapping(_) | Value::Tagged(_) => {
            Err(failed(format!("{}: write the version of Python in quotes, as in `python: \"3.11\"`", file.display())))
        }
    }
}

fn parsed(file: &Path, text: &str) -> Result<Value, ServeError> {
    serde_yaml_ng::from_str(text).map_err(|error| failed(format!("{}: {error}", file.display())))
}

fn list<'v>(file: &Path, value: &'v Value, name: &str) -> Result<&'v [Value], ServeError> {
    match value {
        Value::Null => Ok(&[]),
        Value::Sequence(items) => Ok(items),
        Value::String(_) | Value::Number(_) | Value::Bool(_) | Value::Mapping(_) | Value::Tagged(_) => {
            Err(failed(format!("{}: `{name}` is no list", file.display())))
        }
    }
}

fn odd(file: &Path, text: &str, item: &Value) -> ServeError {
    let item = serde_yaml_ng::to_string(item).unwrap_or_default();
    let item = item.trim();
    failed(format!("line {} of {}: `{item}` is no package", line_of(text, item), file.display()))
}

/// The line with this text, from 1; the last one if no line has it.
fn line_of(text: &str, item: &str) -> usize {
    let says = |line: &str| {
        let line = line.trim().trim_start_matches("- ");
        line.trim_matches(['"', '\'']) == item || without_comment(line).trim_matches(['"', '\'']) == item
    };
    text.lines()
        .position(says)
        .or_else(|| text.lines().position(|line| line.contains(item)))
        .map_or_else(|| text.lines().count(), |place| place + 1)
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;

    fn folder(files: &[(&str, &str)]) -> tempfile::TempDir {
        let root = tempfile::tempdir().unwrap();
        for (name, text) in files {
            fs::write(root.path().join(name), text).unwrap();
        }
        root
    }

    fn read(files: &[(&str, &str)]) -> Result<Wanted, String> {
        let root = folder(files);
        let wanted =
            of_folder(root.path()).map_err(|e| e.to_string().replace(&root.path().display().to_string(), "."))?;
        Ok(wanted.unwrap())
    }

    fn lines(requirements: &[Requirement]) -> Vec<(&str, &str, usize)> {
        let name = |file: &PathBuf| file.file_name().unwrap().to_str().unwrap().to_owned();
        requirements
            .iter()
            .map(|line| (line.text.as_str(), String::leak(name(&line.file)) as &str, line.line))
            .collect()
    }

    #[test]
    fn a_list_is_read_as_pip_reads_it() {
        let list = "# ours\nnumpy>=2,<3  # numbers\n\n-r more.txt\nscipy == 1.0 \\\n  --hash=sha256:00\n-c limits.txt\n\
                    --extra-index-url https://x.test/simple\nfoo @ https://x.test/foo.whl#egg=foo";
        let more = [("requirements.txt", list), ("more.txt", "Joblib\n"), ("limits.txt", "scipy<2\n")];
        let wanted = read(&more).unwrap();
        assert_eq!(
            lines(&wanted.requirements),
            [
                ("numpy>=2,<3", "requirements.txt", 2),
                ("Joblib", "more.txt", 1),
                ("scipy == 1.0 --hash=sha256:00", "requirements.txt", 5),
                ("--extra-index-url https://x.test/simple", "requirements.txt", 8),
                ("foo @ https://x.test/foo.whl#egg=foo", "requirements.txt", 9),
            ]
        );
        assert_eq!(lines(&wanted.constraints), [("scipy<2", "limits.txt", 1)]);
        assert_eq!(wanted.without(&["joblib", "foo"]).requirements.len(), 3);
    }

    #[test]
    fn the_files_that_mlflow_writes_are_read() {
        let environment = "python: 3.11.7\nbuild_dependencies:\n- pip==24.0\n- setuptools==65.5.0\n- wheel==0.45.1\n\
                           dependencies:\n- -r requirements.txt\n";
        let list = "mlflow==3.17.0\ncloudpickle==3.1.2\n";
        let wanted = read(&[("python_env.yaml", environment), ("requirements.txt", list)]).unwrap();
        assert_eq!(wanted.python.as_deref(), Some("3.11.7"));
        assert_eq!(
            lines(&wanted.without(&["mlflow"]).requirements),
            [("setuptools==65.5.0", "python_env.yaml", 4), ("cloudpickle==3.1.2", "requirements.txt", 2)]
        );
        let environment = "channels:\n- conda-forge\ndependencies:\n- python=3.11.7\n- pip<=24.0\n- pip:\n  - mlflow==3.17.0\n  - \
                           numpy==2.4.6\nname: mlflow-env\n";
        let wanted = read(&[("conda.yaml", environment)]).unwrap();
        assert_eq!(wanted.python.as_deref(), Some("3.11.7"));
        assert_eq!(
            lines(&wanted.requirements),
            [("mlflow==3.17.0", "conda.yaml", 7), ("numpy==2.4.6", "conda.yaml", 8)]
        );
    }

    #[test]
    fn what_the_package_index_does_not_have_is_refused_by_file_and_line() {
        #[track_caller]
        fn says(files: &[(&str, &str)], words: &str) {
            let said = read(files).unwrap_err();
            assert!(said.contains(words), "{said}");
        }
        let environment = "dependencies:\n  - python=3.11\n  - cudatoolkit=11.8\n  - conda-forge::lightgbm\n";
        says(&[("conda.yaml", environment)], "line 3 (`cudatoolkit=11.8`), line 4 (`conda-forge::lightgbm`)");
        says(
            &[("requirements.txt", "numpy\n./wheels/x.whl\n")],
            "line 2 of ./requirements.txt (`./wheels/x.whl`) is a path",
        );
        says(&[("requirements.txt", "-e .\n")], "is a package that is being worked on");
        says(&[("requirements.txt", "-r requirements.txt\n")], "leads in a circle");
        says(&[("requirements.txt", "-r none.txt\n")], "names a file that is not there");
        says(&[("requirements.txt", "--frobnicate\n")], "is no option that pip knows");
        says(&[("python_env.yaml", "python: 3.10\n")], "in quotes");
        says(&[("python_env.yaml", "dependencies: [1]\n")], "`1` is no package");
        says(&[("conda.yaml", "dependencies: {")], "conda.yaml: ");
    }

    #[test]
    fn conda_versions_are_understood() {
        for (spec, version) in [
            ("python=3.11", Some("3.11")),
            ("python==3.11.7", Some("3.11.7")),
            ("python=3.11.*", Some("3.11")),
            ("python=3.11.7=h955ad1f_0", Some("3.11.7")),
            ("python>=3.9", None),
            ("python", None),
        ] {
            assert_eq!(conda_version(spec).as_deref(), version, "{spec}");
        }
    }
}
