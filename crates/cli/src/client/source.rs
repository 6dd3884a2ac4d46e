//! What a person points at: a path, a URI, or a registered version.

use std::path::{Component, Path, PathBuf};

use serde_json::{Value, json};

use crate::exit::Failure;

/// A path made absolute against `folder`; a URI as it is. Nothing is looked up.
pub(super) fn absolute(source: &str, folder: &Path) -> String {
    if source.contains("://") || source.starts_with('/') {
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

/// The working directory.
pub(super) fn here() -> Result<PathBuf, Failure> {
    std::env::current_dir().map_err(|error| Failure::failed(format!("the working directory is gone: {error}")))
}

/// The `model` of a deployment of `source`. Fields of the other forms are null, so that it is a merge patch too.
///
/// A path or URI whose last part is a version (`…/iris/3`) is that version of what is above it.
pub(super) fn model(source: &str, version: Option<&str>, digest: Option<&str>) -> Result<Value, Failure> {
    if let Some(registered) = source.strip_prefix("models:/") {
        let Some((name, named)) = registered.split_once('/') else {
            let next = "Write models:/NAME/VERSION; see the versions with `modelway models get NAME`.";
            return Err(Failure::usage(format!("`{source}` names no version")).next(next));
        };
        if version.is_some_and(|version| version != named) || digest.is_some() {
            let reason = "a registered version has its own version and digest: leave out --version and --digest";
            return Err(Failure::usage(reason));
        }
        return Ok(json!({
            "name": name, "version": named, "type": null, "bucket": null, "prefix": null, "digest": null
        }));
    }
    let place = absolute(source, &here()?);
    let local = place.strip_prefix("file://").or_else(|| place.starts_with('/').then_some(place.as_str()));
    if let Some(path) = local {
        // The worker may be on another machine, which sees another disk: only what is plainly absent here is refused.
        if !Path::new(path).exists() && !source.starts_with("file://") {
            let next =
                "A path is taken from the working directory; write a URI (s3://, gs://, https://) for another place.";
            return Err(Failure::failed(format!("there is nothing at {path}")).next(next));
        }
    }
    let (bucket, version) = split_version(&place, version);
    Ok(json!({
        "name": null, "type": "single", "bucket": bucket, "prefix": "", "version": version, "digest": digest
    }))
}

fn split_version<'p>(place: &'p str, version: Option<&str>) -> (&'p str, String) {
    let place_end = place.trim_end_matches('/');
    let last = place_end.rsplit_once('/').filter(|(above, last)| !above.is_empty() && looks_like_version(last));
    match (last, version) {
        (Some((above, last)), None) => (above, last.to_owned()),
        (Some((above, last)), Some(version)) if last == version => (above, last.to_owned()),
        (_, Some(version)) => (place, version.to_owned()),
        (None, None) => (place, newest_below(place).unwrap_or_else(|| "1".to_owned())),
    }
}

/// `3`, `v3`, `1.2.0`.
fn looks_like_version(part: &str) -> bool {
    let digits = part.strip_prefix('v').unwrap_or(part);
    digits.starts_with(|c: char| c.is_ascii_digit()) && digits.bytes().all(|b| b.is_ascii_digit() || b == b'.')
}

/// The highest numbered folder in a local one: TensorFlow Serving's and Triton's layout.
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
    }

    #[test]
    fn the_last_part_is_the_version_where_it_looks_like_one() {
        let of = |place| split_version(place, None);
        assert_eq!(of("s3://models/iris/3"), ("s3://models/iris", "3".to_owned()));
        assert_eq!(of("/srv/iris/v1.2/"), ("/srv/iris", "v1.2".to_owned()));
        assert_eq!(of("/nowhere/iris"), ("/nowhere/iris", "1".to_owned()));
        assert_eq!(split_version("/srv/iris/3", Some("4")), ("/srv/iris/3", "4".to_owned()));
        assert_eq!(split_version("/srv/iris/3", Some("3")), ("/srv/iris", "3".to_owned()));
    }

    #[test]
    fn the_newest_numbered_folder_is_the_version() {
        let folder = tempfile::tempdir().expect("a folder");
        for version in ["2", "10", "tmp"] {
            std::fs::create_dir(folder.path().join(version)).expect("a folder");
        }
        let place = folder.path().to_str().expect("text");
        assert_eq!(split_version(place, None), (place, "10".to_owned()));
    }

    #[test]
    fn a_registered_version_is_named_as_a_whole() {
        let model = |source, version| model(source, version, None);
        assert_eq!(model("models:/iris/v1", None).expect("it is whole")["version"], "v1");
        assert!(model("models:/iris", None).is_err());
        assert!(model("models:/iris/v1", Some("v2")).is_err());
    }
}
