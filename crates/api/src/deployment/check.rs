//! What single fields of a deployment may hold.

use crate::decode::{nearest, short};

/// Fields of a response that only the server sets. A user who edits a response and sends it back leaves them in.
pub const READ_ONLY: [&str; 14] = [
    "id",
    "status",
    "url",
    "created_at",
    "updated_at",
    "revision",
    "ready_replicas",
    "serving_revision",
    "traffic",
    "artifact",
    "digest",
    "error",
    "notes",
    "replica_status",
];

/// One part of the address of an artefact.
const MAX_PATH_BYTES: usize = 2048;

/// A deployment is found by its name and by its number, so a name must not be a number.
pub(super) fn check_deployment_name(name: &str) -> Result<(), String> {
    check_name(name)?;
    if name.bytes().all(|b| b.is_ascii_digit()) {
        return Err(format!("`{name}` is all digits and would be taken for the number of a deployment; add a letter"));
    }
    Ok(())
}

/// The name of a placement: workers and deployments of the same one belong together.
///
/// # Errors
/// A sentence that says what a name looks like.
pub fn check_placement(name: &str) -> Result<(), String> {
    check_word(name, "placement")
}

/// A name is part of URLs, file names and DNS names.
pub(crate) fn check_name(name: &str) -> Result<(), String> {
    check_word(name, "name")?;
    if name.starts_with("md-") {
        return Err(format!("`{name}` begins with `md-`, which is reserved for the ids of deployments"));
    }
    Ok(())
}

/// A word that can be part of URLs, file names, DNS names and labels.
fn check_word(word: &str, what: &str) -> Result<(), String> {
    let fits = !word.is_empty()
        && word.len() <= 63
        && word.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b"-_.".contains(&b))
        && word.starts_with(|c: char| c.is_ascii_alphanumeric())
        && word.ends_with(|c: char| c.is_ascii_alphanumeric());
    fits.then_some(()).ok_or_else(|| {
        format!(
            "`{}` is not a {what}: use 1 to 63 of a-z, 0-9, `-`, `_` and `.`, beginning and ending with a letter or digit",
            short(word)
        )
    })
}

/// A version is one segment of a path.
pub(crate) fn check_version(version: &str) -> Result<(), String> {
    let fits = !version.is_empty()
        && version.len() <= 128
        && version.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.+".contains(&b))
        && !version.chars().all(|c| c == '.');
    fits.then_some(()).ok_or_else(|| {
        format!("`{}` is not a version: use 1 to 128 letters, digits, `-`, `_`, `.` and `+`", short(version))
    })
}

/// Checks what a file system and a command line can represent.
pub(super) fn check_path(path: &str) -> Result<(), String> {
    if path.len() > MAX_PATH_BYTES {
        return Err(format!("it has {} bytes, at most {MAX_PATH_BYTES} are allowed", path.len()));
    }
    if path.contains(char::is_control) {
        return Err(format!("{:?} has a control character, which a path must not have", short(path)));
    }
    Ok(())
}

/// The schemes of MLflow addresses.
const MLFLOW: [&str; 3] = ["models", "runs", "mlflow-artifacts"];

/// Whether a location is an MLflow address: `models:/…`, `runs:/…` or `mlflow-artifacts:/…`.
#[must_use]
pub fn is_mlflow(place: &str) -> bool {
    place.split_once(":/").is_some_and(|(scheme, _)| MLFLOW.contains(&scheme))
}

/// An MLflow address must name a version, a run or a file.
fn check_mlflow(place: &str) -> Result<(), String> {
    let (scheme, rest) = place.split_once(":/").unwrap_or((place, ""));
    let rest = rest.trim_matches('/');
    let whole = match scheme {
        "models" => rest.starts_with("m-") || rest.contains(['/', '@']),
        _ => !rest.is_empty(),
    };
    whole.then_some(()).ok_or_else(|| {
        format!(
            "`{}` names no version or run; write models:/NAME/3, models:/NAME@ALIAS or runs:/RUN_ID/PATH",
            short(place)
        )
    })
}

/// The location of files: an address with a known scheme, or an absolute path.
pub(crate) fn check_place(place: &str) -> Result<(), String> {
    const SCHEMES: [&str; 5] = ["s3", "gs", "http", "https", "file"];
    check_path(place)?;
    if is_mlflow(place) {
        return check_mlflow(place);
    }
    let Some((scheme, rest)) = place.split_once("://") else {
        return place.starts_with('/').then_some(()).ok_or_else(|| {
            format!(
                "`{}` is neither an absolute path nor an address; write /path, s3://, gs://, http(s)://, file://, models:/ or runs:/",
                short(place)
            )
        });
    };
    let scheme = scheme.to_ascii_lowercase();
    if !SCHEMES.contains(&scheme.as_str()) {
        let hint = match nearest(&scheme, SCHEMES) {
            Some(near) => format!("did you mean `{near}://`?"),
            None => format!("the known schemes are {}", SCHEMES.join(", ")),
        };
        return Err(format!("`{}://` is not a known scheme; {hint}", short(&scheme)));
    }
    if scheme == "file" && !rest.starts_with('/') {
        return Err("a file on this machine is written file:///absolute/path".to_owned());
    }
    if scheme != "file" && rest.split('/').next().is_none_or(str::is_empty) {
        return Err(format!("`{}` names no bucket or host after `{scheme}://`", short(place)));
    }
    Ok(())
}

/// A program on the machine of the replica.
pub(super) fn check_python(python: &str) -> Result<(), String> {
    check_path(python)?;
    if python.is_empty() || (python.contains('/') && !python.starts_with('/')) {
        return Err(format!(
            "`{}` is neither an absolute path nor the name of a program; write /path/to/venv, /path/to/python or python3.11",
            short(python)
        ));
    }
    Ok(())
}

/// `sha256:` and 64 hexadecimal digits.
pub(crate) fn check_digest(digest: &str) -> Result<(), String> {
    let fits = digest
        .strip_prefix("sha256:")
        .is_some_and(|hex| hex.len() == 64 && hex.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b)));
    fits.then_some(()).ok_or_else(|| {
        "expected `sha256:` and 64 lower-case hexadecimal digits; `modelway models digest` prints it".to_owned()
    })
}

pub(super) fn check_label(key: &str, value: &str) -> Result<(), String> {
    let odd = key.contains(['=', ',']) || [key, value].iter().any(|text| text.contains(char::is_control));
    if key.is_empty() || key.len() > 128 || value.len() > 256 || odd {
        return Err("a label has a key of 1 to 128 characters without `=` and `,`, and a value of at most 256, both \
                    without control characters"
            .to_owned());
    }
    Ok(())
}

pub(super) fn check_env(key: &str, value: &str) -> Result<(), String> {
    check_variable(key)?;
    if value.contains('\0') {
        return Err(format!(
            "the value of `{}` has a NUL character, which an environment variable cannot contain",
            short(key)
        ));
    }
    Ok(())
}

/// A variable, and the file that holds its value.
pub(super) fn check_env_file(key: &str, path: &str) -> Result<(), String> {
    check_variable(key)?;
    check_path(path)?;
    if !path.starts_with('/') {
        return Err(format!(
            "`{}` is not a whole path; write /path/to/the/file on the machine of the replica",
            short(path)
        ));
    }
    Ok(())
}

/// The name of an environment variable that a user may set.
fn check_variable(key: &str) -> Result<(), String> {
    let fits = !key.starts_with(|c: char| c.is_ascii_digit())
        && !key.is_empty()
        && key.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_');
    if !fits {
        return Err(format!(
            "`{}` is not an environment variable: use letters, digits and `_`, not beginning with a digit",
            short(key)
        ));
    }
    if key.starts_with("MODELWAY__")
        || ["MODELWAY_CONFIG", "MODELWAY_REPLICA_SOCKET", "MODELWAY_REPLICA_EPOCH"].contains(&key)
    {
        return Err(format!("`{}` would change Modelway's own settings of the replica; use another name", short(key)));
    }
    Ok(())
}
