//! Resolves SOURCE: a path, a URI, or a registered version.

use std::{
    path::{Component, Path, PathBuf},
    time::Duration,
};

use api::deployment::is_mlflow;
use artifact::Seen;
use serde_json::{Value, json};

use super::http::Control;
use crate::exit::Failure;

/// Timeout for inspecting a remote location.
const LOOK: Duration = Duration::from_secs(10);
/// The number of digits of a digest that are used as a version.
const VERSION_DIGITS: usize = 12;

/// Makes a path absolute, relative to `folder`; does not change a URI. Nothing is looked up.
pub(super) fn absolute(source: &str, folder: &Path) -> String {
    if source.contains("://") || source.starts_with('/') || is_mlflow(source) {
        return source.to_owned();
    }
    let mut path = PathBuf::from(folder);
    for part in Path::new(source).components() {
        match part {
            Component::CurDir => {}
            Component::ParentDir => {
                path.pop();
            }
            Component::Normal(_) | Component::RootDir | Component::Prefix(_) => path.push(part),
        }
    }
    path.to_string_lossy().into_owned()
}

/// An interpreter: a path made absolute, or the name of a program unchanged.
pub(super) fn program(python: &str, folder: &Path) -> String {
    if python.contains('/') { absolute(python, folder) } else { python.to_owned() }
}

/// The working directory.
pub(super) fn here() -> Result<PathBuf, Failure> {
    std::env::current_dir().map_err(|error| Failure::failed(format!("the working directory is gone: {error}")))
}

/// The field `model` of a deployment of `source`. Fields of the other forms are null, so that it is also a merge patch.
///
/// If the last part of a path or URI is a version (`…/iris/3`), it is that version of the model in its parent. If there
/// is no version, the first digits of the digest are used, or of a digest of what a remote location reports about its
/// files.
pub(super) async fn model(
    control: &Control,
    sources: &artifact::Config,
    source: &str,
    version: Option<&str>,
    digest: Option<&str>,
) -> Result<Value, Failure> {
    if let Some(registered) = source.strip_prefix("models:/")
        && !registered.contains('@')
        && !registered.starts_with("m-")
    {
        let Some((name, named)) = registered.split_once('/') else {
            let next = "Write models:/NAME/VERSION (see the versions with `modelway models get NAME`), or models:/NAME@ALIAS \
                        for MLflow.";
            return Err(Failure::usage(format!("`{source}` names no version")).next(next));
        };
        if !sources.names_mlflow() || control.is_registered(name, named).await? {
            if version.is_some_and(|version| version != named) || digest.is_some() {
                let reason = "a registered version has its own version and digest: leave out --version and --digest";
                return Err(Failure::usage(reason));
            }
            return Ok(json!({
                "name": name, "version": named, "type": null, "bucket": null, "prefix": null, "digest": null
            }));
        }
    }
    if is_mlflow(source) {
        let seen = resolve(sources, source).await?;
        let named = seen.resolved.strip_prefix("models:/").and_then(|model| Some(model.split_once('/')?.1.to_owned()));
        let version = version.map(str::to_owned).or(named).unwrap_or_else(|| version_of(&seen));
        return Ok(of_files(&seen.resolved, &version, digest));
    }
    let place = absolute(source, &here()?);
    let local = place.strip_prefix("file://").or_else(|| place.starts_with('/').then_some(place.as_str()));
    if let Some(path) = local {
        // The worker may be on another machine with another disk: a path is refused only if it does not exist here.
        if !Path::new(path).exists() && !source.starts_with("file://") {
            let next =
                "A path is taken from the working directory; write a URI (s3://, gs://, https://) for another place.";
            return Err(Failure::failed(format!("there is nothing at {path}")).next(next));
        }
    }
    let (bucket, version) = split_version(&place, version);
    let version = match version {
        Some(version) => version,
        // If the location cannot be inspected from here, the replica will find it or report why not.
        None => {
            see(sources, std::slice::from_ref(&place)).await.map_or_else(|_| "1".to_owned(), |seen| version_of(&seen))
        }
    };
    Ok(of_files(bucket, &version, digest))
}

pub(super) fn of_files(bucket: &str, version: &str, digest: Option<&str>) -> Value {
    json!({"name": null, "type": "single", "bucket": bucket, "prefix": "", "version": version, "digest": digest})
}

/// What an MLflow address currently resolves to.
///
/// # Errors
/// No server is configured, or it does not know the address.
pub(super) async fn resolve(sources: &artifact::Config, uri: &str) -> Result<Seen, Failure> {
    see(sources, &[uri.to_owned()]).await.map_err(Failure::failed)
}

/// The content of the first of these locations that has files.
///
/// # Errors
/// Why it cannot be inspected from here, as a sentence.
pub(super) async fn see(sources: &artifact::Config, uris: &[String]) -> Result<Seen, String> {
    match tokio::time::timeout(LOOK, artifact::Cache::see(sources, uris)).await {
        Ok(seen) => seen.map_err(|error| error.to_string()),
        Err(_) => Err(format!("{} did not answer within {} s", uris.join(" and "), LOOK.as_secs())),
    }
}

/// A version that identifies these files.
fn version_of(seen: &Seen) -> String {
    let digits = seen.digest.as_deref().map(|digest| digest.trim_start_matches("sha256:"));
    let digits = digits.or(seen.fingerprint.as_deref()).unwrap_or("1");
    digits.chars().take(VERSION_DIGITS).collect()
}

/// The folder with the versions and the version in it; the location itself if its last part is not a version.
fn split_version<'p>(place: &'p str, version: Option<&str>) -> (&'p str, Option<String>) {
    let place_end = place.trim_end_matches('/');
    let last = place_end.rsplit_once('/').filter(|(above, last)| !above.is_empty() && looks_like_version(last));
    match (last, version) {
        (Some((above, last)), None) => (above, Some(last.to_owned())),
        (Some((above, last)), Some(version)) if last == version => (above, Some(last.to_owned())),
        (_, Some(version)) => (place, Some(version.to_owned())),
        (None, None) => (place, newest_below(place)),
    }
}

/// `3`, `v3`, `1.2.0`.
fn looks_like_version(part: &str) -> bool {
    let digits = part.strip_prefix('v').unwrap_or(part);
    digits.starts_with(|c: char| c.is_ascii_digit()) && digits.bytes().all(|b| b.is_ascii_digit() || b == b'.')
}

/// The highest numbered folder in a local one, the layout of TensorFlow Serving and Triton.
fn newest_below(place: &str) -> Option<String> {
    let folders = std::fs::read_dir(place).ok()?;
    let numbers = folders.flatten().filter(|entry| entry.path().is_dir());
    numbers.filter_map(|entry| entry.file_name().to_str()?.parse::<u64>().ok()).max().map(|number| number.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_becomes_absolute_and_a_uri_stays() {
        let of = |source| absolute(source, Path::new("/home/me"));
        assert_eq!(of("./models/../iris"), "/home/me/iris");
        assert_eq!(of("iris"), "/home/me/iris");
        assert_eq!(of("/srv/iris"), "/srv/iris");
        assert_eq!(of("s3://a/b"), "s3://a/b");
        assert_eq!(of("models:/iris@champion"), "models:/iris@champion");
    }

    #[test]
    fn the_last_part_is_the_version_where_it_looks_like_one() {
        let of = |place| split_version(place, None);
        assert_eq!(of("s3://models/iris/3"), ("s3://models/iris", Some("3".to_owned())));
        assert_eq!(of("/srv/iris/v1.2/"), ("/srv/iris", Some("v1.2".to_owned())));
        assert_eq!(of("/nowhere/iris"), ("/nowhere/iris", None));
        assert_eq!(split_version("/srv/iris/3", Some("4")), ("/srv/iris/3", Some("4".to_owned())));
        assert_eq!(split_version("/srv/iris/3", Some("3")), ("/srv/iris", Some("3".to_owned())));
    }

    #[test]
    fn the_newest_numbered_folder_is_the_version() {
        let folder = tempfile::tempdir().expect("a folder");
        for version in ["2", "10", "tmp"] {
            std::fs::create_dir(folder.path().join(version)).expect("a folder");
        }
        let place = folder.path().to_str().expect("text");
        assert_eq!(split_version(place, None), (place, Some("10".to_owned())));
    }

    #[test]
    fn a_program_stays_and_a_path_becomes_absolute() {
        let of = |python| program(python, Path::new("/home/me"));
        assert_eq!(of("python3.11"), "python3.11");
        assert_eq!(of("./venv"), "/home/me/venv");
        assert_eq!(of("/venv/bin/python"), "/venv/bin/python");
    }
}
