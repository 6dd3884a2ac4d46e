//! The location of an artefact, and whether the settings allow it.

use std::path::{Path, PathBuf};

use url::Url;

use crate::{
    Config,
    error::{ArtifactError, Failure},
    mlflow::address::{Address, SCHEMES, Tracked},
    unpack::Archive,
};

/// The location of an artefact.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    /// On this machine.
    Local(PathBuf),
    /// On a web server: one file, or an archive.
    Http(Url),
    /// In an object store: one object, or all objects below a folder.
    Bucket { store: Store, bucket: String, key: String },
    /// An MLflow address, which is resolved before the fetch.
    Mlflow(Address),
    /// On an MLflow server that provides files itself.
    Tracked(Tracked),
}

/// The kinds of object stores.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Store {
    S3,
    Gcs,
}

/// Whether it could be a scheme.
fn is_word(text: &str) -> bool {
    text.len() > 1 && text.bytes().all(|byte| byte.is_ascii_alphanumeric())
}

impl Place {
    /// Parses an address: a URI or a plain path.
    pub(crate) fn parse(uri: &str, config: &Config) -> Result<Self, ArtifactError> {
        let refused = |reason: String| ArtifactError::Refused { uri: shown(uri), code: "artifact_refused", reason };
        let (scheme, rest) = match uri.split_once("://") {
            Some((scheme, rest)) => (scheme.to_ascii_lowercase(), rest),
            None => match uri.split_once(":/") {
                Some((scheme, rest)) if SCHEMES.contains(&scheme) => (scheme.to_owned(), rest),
                // Such as `foo:/x`: as a path it would need a folder `foo:`.
                Some((scheme, rest)) if is_word(scheme) && !Path::new(uri).exists() => (scheme.to_owned(), rest),
                _ => ("file".to_owned(), uri),
            },
        };
        if !config.schemes.contains(&scheme) {
            let allowed = config.schemes.join(", ");
            return Err(refused(format!("artefacts may come from {allowed}, not {scheme}; the setting is `schemes`")));
        }
        match scheme.as_str() {
            "file" if uri.contains("://") => match Url::parse(uri).ok().and_then(|url| url.to_file_path().ok()) {
                Some(path) => Ok(Self::Local(path)),
                None => Err(refused("a file on this machine is written file:///absolute/path".into())),
            },
            "file" if uri.is_empty() => Err(refused("the address is empty".into())),
            "file" => Ok(Self::Local(PathBuf::from(uri))),
            "http" | "https" => {
                Url::parse(uri).map(Self::Http).map_err(|error| refused(format!("it is not a URL: {error}")))
            }
            "s3" => Self::bucket(Store::S3, rest).map_err(refused),
            "gs" => Self::bucket(Store::Gcs, rest).map_err(refused),
            "models" | "runs" | "mlflow-artifacts" => {
                let whole = &uri[scheme.len() + 1..];
                Address::parse(&scheme, whole).map(Self::Mlflow).map_err(refused)
            }
            other => Err(refused(format!(
                "{other} is not a known scheme; the known schemes are s3, gs, http, https, models, runs, mlflow-artifacts and file"
            ))),
        }
    }

    fn bucket(store: Store, rest: &str) -> Result<Self, String> {
        let (bucket, key) = rest.split_once('/').unwrap_or((rest, ""));
        if bucket.is_empty() {
            return Err("it names no bucket; write s3://bucket/folder".to_owned());
        }
        Ok(Self::Bucket { store, bucket: bucket.to_owned(), key: key.to_owned() })
    }

    /// The kind of archive from the suffix of the address, if any.
    pub(crate) fn archive(&self) -> Option<Archive> {
        match self {
            Self::Local(path) => Archive::of_name(path.to_str()?),
            Self::Http(url) => Archive::of_name(url.path()),
            Self::Bucket { key, .. } => Archive::of_name(key),
            Self::Tracked(tracked) => Archive::of_name(&tracked.path),
            Self::Mlflow(_) => None,
        }
    }
}

/// The real path of a local artefact, checked against the allowed roots.
pub(crate) fn resolve(path: &Path, roots: &[PathBuf]) -> Result<PathBuf, Failure> {
    use std::io::ErrorKind;
    let real = path.canonicalize().map_err(|error| {
        if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) {
            Failure::Missing
        } else if error.kind() == ErrorKind::PermissionDenied {
            Failure::Refused("artifact_denied", "this user may not read it; change its permissions".to_owned())
        } else {
            Failure::Disk(error)
        }
    })?;
    // A root that does not exist contains nothing.
    let allowed =
        roots.is_empty() || roots.iter().any(|root| root.canonicalize().is_ok_and(|root| real.starts_with(root)));
    if allowed {
        return Ok(real);
    }
    let roots = roots.iter().map(|root| root.display().to_string()).collect::<Vec<_>>().join(", ");
    let reason = format!("local artefacts must be below {roots}; move it there or extend the setting `local_roots`");
    Err(Failure::Refused("artifact_refused", reason))
}

/// An address without secrets: without the user part and the query.
pub(crate) fn shown(uri: &str) -> String {
    let Ok(mut url) = Url::parse(uri) else { return uri.to_owned() };
    if !matches!(url.scheme(), "http" | "https")
        || (url.query().is_none() && url.username().is_empty() && url.password().is_none())
    {
        return uri.to_owned();
    }
    let had_query = url.query().is_some();
    url.set_query(None);
    // Both fail only for URLs without a user part.
    let _ = url.set_username("");
    let _ = url.set_password(None);
    format!("{url}{}", if had_query { "?…" } else { "" })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(uri: &str) -> String {
        Place::parse(uri, &Config::default()).expect_err(uri).to_string()
    }

    #[test]
    fn addresses_are_told_apart() {
        let parse = |uri| Place::parse(uri, &Config::default()).expect(uri);
        assert_eq!(parse("models/iris"), Place::Local("models/iris".into()));
        assert_eq!(parse("file:///srv/a%20b"), Place::Local("/srv/a b".into()));
        let s3 = |bucket: &str, key: &str| Place::Bucket { store: Store::S3, bucket: bucket.into(), key: key.into() };
        assert_eq!(parse("s3://b/models/v1/"), s3("b", "models/v1/"));
        assert_eq!(parse("S3://b"), s3("b", ""));
        assert!(matches!(parse("gs://b/x"), Place::Bucket { store: Store::Gcs, .. }));
        assert!(matches!(parse("http://h/x.onnx"), Place::Http(_)));
        for mlflow in
            ["models:/iris/1", "models:/iris@champion", "runs:/r/model", "runs:///r", "mlflow-artifacts://h/x"]
        {
            assert!(matches!(parse(mlflow), Place::Mlflow(_)), "{mlflow}");
        }
    }

    #[test]
    fn what_cannot_be_fetched_is_refused_in_words() {
        assert!(refusal("models:/iris").contains("names no version"));
        assert!(refusal("ftp://h/x").contains("s3, gs, http, https, file, models, runs, mlflow-artifacts, not ftp"));
        assert!(refusal("model:/iris/1").contains("not model;"));
        assert!(refusal("file://host/x").contains("file:///absolute/path"));
        assert!(refusal("s3:///key").contains("names no bucket"));
        let narrow = Config { schemes: vec!["s3".into()], ..Config::default() };
        assert!(Place::parse("/etc/passwd", &narrow).expect_err("a path").to_string().contains("not file"));
        assert!(Place::parse("models:/iris/1", &narrow).expect_err("a registry").to_string().contains("not models"));
    }

    #[test]
    fn secrets_are_not_shown() {
        assert_eq!(shown("https://u:p@h/a?X-Signature=s"), "https://h/a?…");
        assert_eq!(shown("https://h/a"), "https://h/a");
        assert_eq!(shown("s3://b/a?b"), "s3://b/a?b");
    }

    #[test]
    fn a_link_out_of_the_allowed_roots_is_refused() {
        let folder = tempfile::tempdir().expect("a folder");
        let (inside, outside) = (folder.path().join("in"), folder.path().join("out"));
        for place in [&inside, &outside] {
            std::fs::create_dir(place).expect("it can be made");
        }
        std::os::unix::fs::symlink(&outside, inside.join("link")).expect("a link");
        let roots = [inside.clone()];
        assert!(resolve(&inside, &roots).is_ok());
        assert!(matches!(resolve(&inside.join("link"), &roots), Err(Failure::Refused("artifact_refused", _))));
        assert!(matches!(resolve(&inside.join("../out"), &roots), Err(Failure::Refused(..))));
        assert!(matches!(resolve(&inside.join("none"), &roots), Err(Failure::Missing)));
    }
}
