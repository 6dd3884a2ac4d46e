//! Parses the path of an inference request. All servers use this one rule.
//!
//! A path is split at its slashes, and then each part is percent-decoded once. So `%2F` is a character of a name and
//! does not split, `iris%3Apredict` is `iris:predict`, and any character of a name may be encoded. Slashes at the end
//! of a path are ignored. Whether the model exists is not checked here.

use std::borrow::Cow;

use percent_encoding::percent_decode_str;

/// What a path refers to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target<'p> {
    /// A resource of one model.
    Model(ModelPath<'p>),
    /// Any other path, decoded, without slashes at its end. `/` alone is `/`.
    Other(Cow<'p, str>),
}

/// A resource of one model.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ModelPath<'p> {
    /// The protocol of the path.
    pub protocol: Protocol,
    /// The name of the model. It is not empty, and may contain any character, including slashes and colons.
    pub name: Cow<'p, str>,
    /// The version, if the path contains one.
    pub version: Option<Cow<'p, str>>,
    /// The action: in V1 the word after the colon (`predict` or `explain`), in V2 the rest of the path (`infer`,
    /// `health/live`); empty for the model itself.
    pub action: Cow<'p, str>,
}

/// The paths that contain a model name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// `/v1/models/{name}[/versions/{version}][:{action}]`
    V1,
    /// `/v2/models/{name}[/versions/{version}][/{action}]`
    V2,
    /// `/v2/repository/models/{name}/{action}`
    Repository,
}

/// The decoded path is not UTF-8.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the path is not UTF-8 after its percent signs are resolved")]
pub struct NotUtf8;

/// The words that V1 allows after a colon.
const VERBS: [&str; 2] = ["predict", "explain"];

/// Parses a path without its query.
///
/// # Errors
/// [`NotUtf8`]: the client is at fault.
pub fn read(path: &str) -> Result<Target<'_>, NotUtf8> {
    let path = path.trim_end_matches('/');
    let model = match cut(path) {
        ("", rest) => of_model(rest)?,
        _ => None,
    };
    Ok(match model {
        Some(model) => Target::Model(model),
        None if path.is_empty() => Target::Other(Cow::Borrowed("/")),
        None => Target::Other(joined(path)?),
    })
}

/// Whether a path can contain this name: it is not empty, and clients do not resolve it like `.` or `..`.
#[must_use]
pub fn is_reachable(name: &str) -> bool {
    !matches!(name, "" | "." | "..") && !name.chars().any(char::is_control)
}

fn of_model(path: &str) -> Result<Option<ModelPath<'_>>, NotUtf8> {
    let (protocol, rest) = cut(path);
    let (kind, rest) = cut(rest);
    let (protocol, rest) = match (decoded(protocol)?.as_ref(), decoded(kind)?.as_ref()) {
        ("v1", "models") => (Protocol::V1, rest),
        ("v2", "models") => (Protocol::V2, rest),
        ("v2", "repository") => match cut(rest) {
            (kind, rest) if decoded(kind)? == "models" => (Protocol::Repository, rest),
            _ => return Ok(None),
        },
        _ => return Ok(None),
    };
    let (name, mut rest) = cut(rest);
    let mut name = decoded(name)?;
    let mut version = None;
    if protocol != Protocol::Repository
        && let (word, below) = cut(rest)
        && decoded(word)? == "versions"
        && !below.is_empty()
    {
        let (named, below) = cut(below);
        (version, rest) = (Some(decoded(named)?), below);
    }
    let mut action = joined(rest)?;
    if protocol == Protocol::V1 && action.is_empty() {
        action = take_verb(version.as_mut().unwrap_or(&mut name)).map_or(action, Cow::Borrowed);
    }
    if name.is_empty() || version.as_deref() == Some("") {
        return Ok(None);
    }
    Ok(Some(ModelPath { protocol, name, version, action }))
}

/// Removes the verb after the last colon from a part, if it is a known one.
fn take_verb(part: &mut Cow<'_, str>) -> Option<&'static str> {
    let (before, word) = part.rsplit_once(':')?;
    let verb = VERBS.into_iter().find(|verb| *verb == word)?;
    let length = before.len();
    match part {
        Cow::Borrowed(part) => *part = &part[..length],
        Cow::Owned(part) => part.truncate(length),
    }
    Some(verb)
}

/// The text before the first slash, and the text after it.
fn cut(path: &str) -> (&str, &str) {
    path.split_once('/').unwrap_or((path, ""))
}

fn decoded(part: &str) -> Result<Cow<'_, str>, NotUtf8> {
    percent_decode_str(part).decode_utf8().map_err(|_| NotUtf8)
}

/// Several parts, each decoded. If a decoded part contains a slash, all parts stay encoded: no resource has such a
/// path.
fn joined(path: &str) -> Result<Cow<'_, str>, NotUtf8> {
    if !path.contains('%') {
        return Ok(Cow::Borrowed(path));
    }
    let parts = path.split('/').map(decoded).collect::<Result<Vec<_>, _>>()?;
    if parts.iter().any(|part| part.contains('/')) {
        return Ok(Cow::Borrowed(path));
    }
    Ok(Cow::Owned(parts.join("/")))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As `protocol name@version action`.
    fn model(path: &str) -> String {
        match read(path) {
            Ok(Target::Model(ModelPath { protocol, name, version, action })) => {
                let version = version.map_or_else(String::new, |version| format!("@{version}"));
                format!("{protocol:?} {name}{version} {action}")
            }
            other => format!("{other:?}"),
        }
    }

    #[test]
    fn every_protocol_names_a_model_its_version_and_what_is_asked() {
        for (path, wanted) in [
            ("/v1/models/iris:predict", "V1 iris predict"),
            ("/v1/models/iris", "V1 iris "),
            ("/v1/models/iris/versions/3:explain", "V1 iris@3 explain"),
            ("/v1/models/a:b", "V1 a:b "),
            ("/v1/models/a:b:predict", "V1 a:b predict"),
            ("/v1/models/iris/metadata", "V1 iris metadata"),
            ("/v2/models/iris", "V2 iris "),
            ("/v2/models/iris/infer", "V2 iris infer"),
            ("/v2/models/iris/health/live", "V2 iris health/live"),
            ("/v2/models/iris/versions/1.2/generate_stream", "V2 iris@1.2 generate_stream"),
            ("/v2/models/iris/versions", "V2 iris versions"),
            ("/v2/models/iris:predict", "V2 iris:predict "),
            ("/v2/repository/models/iris/load", "Repository iris load"),
        ] {
            assert_eq!(model(path), wanted, "{path}");
        }
    }

    #[test]
    fn parts_are_decoded_once_after_they_are_cut() {
        for (path, wanted) in [
            ("/v1/models/iris%3Apredict", "V1 iris predict"),
            ("/v1/models/iris/versions/3%3apredict", "V1 iris@3 predict"),
            ("/v1/models/%69ri%73:predict", "V1 iris predict"),
            ("/v2/models/a%2Fb/infer", "V2 a/b infer"),
            ("/v1/models/a%2Fversions%2F1:predict", "V1 a/versions/1 predict"),
            ("/v2/models/a%252Fb/infer", "V2 a%2Fb infer"),
            ("/v2/models/h%C3%A9%20x/%69nfer", "V2 hé x infer"),
            ("/%76%32/m%6fdels/iris/versi%6fns/1/infer", "V2 iris@1 infer"),
            ("/v2/models/iris/health%2Flive", "V2 iris health%2Flive"),
            ("/v2/models/50%/infer", "V2 50% infer"),
            ("/v2/models/%FF/infer", "Err(NotUtf8)"),
        ] {
            assert_eq!(model(path), wanted, "{path}");
        }
    }

    #[test]
    fn slashes_at_the_end_mean_nothing() {
        for path in ["/v2/models/iris/infer/", "/v2/models/iris/infer//"] {
            assert_eq!(model(path), "V2 iris infer");
        }
        assert_eq!(model("/v1/models/iris:predict/"), "V1 iris predict");
        for (path, wanted) in [
            ("/", "/"),
            ("", "/"),
            ("//", "/"),
            ("/v2/", "/v2"),
            ("/v2/health/ready/", "/v2/health/ready"),
            ("/v2/health/re%61dy", "/v2/health/ready"),
            ("/v2%2Fhealth", "/v2%2Fhealth"),
            ("/v1/models/", "/v1/models"),
            ("/v2/models//infer", "/v2/models//infer"),
            ("/v2/models/iris/versions//infer", "/v2/models/iris/versions//infer"),
            ("/v1/models/:predict", "/v1/models/:predict"),
            ("v2/models/iris", "v2/models/iris"),
            ("*", "*"),
        ] {
            assert_eq!(read(path), Ok(Target::Other(Cow::Borrowed(wanted))), "{path}");
        }
    }

    #[test]
    fn a_name_that_no_path_can_hold_is_not_reachable() {
        for name in ["", ".", "..", "a\0", "\n"] {
            assert!(!is_reachable(name), "{name:?}");
        }
        for name in ["iris", "a/b", "...", "é", "a b", "md-7"] {
            assert!(is_reachable(name), "{name:?}");
        }
    }
}
