//! What addresses of MLflow say.

use std::fmt;

/// The meaning of an MLflow address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Address {
    /// `models:/name/…`, `models:/name@alias`: a version of a registered model.
    Registered { name: String, pick: Pick },
    /// `models:/m-…`: a logged model.
    Logged { id: String },
    /// `runs:/run/path`: an artefact of a run.
    Run { run: String, path: String },
    /// `mlflow-artifacts:/path`: a folder or file of the server; `host` for another server.
    Artifacts { host: Option<String>, path: String },
}

/// The version of a registered model.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Pick {
    Version(u64),
    Latest,
    Stage(String),
    Alias(String),
}

/// Files that a tracking server provides itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Tracked {
    /// The server, with its port.
    pub(crate) server: url::Url,
    /// The folder or file, without a slash at either end.
    pub(crate) path: String,
}

impl Tracked {
    /// Whether its files never change: those of a logged model are written once.
    pub(crate) fn is_final(&self) -> bool {
        let parts: Vec<_> = self.path.split('/').collect();
        parts.windows(2).any(|two| two[0] == "models" && two[1].starts_with("m-"))
    }
}

impl fmt::Display for Tracked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} mlflow-artifacts:/{}", self.server, self.path)
    }
}

/// The schemes of these addresses.
pub(crate) const SCHEMES: [&str; 3] = ["models", "runs", "mlflow-artifacts"];

impl Address {
    /// The address that always means `version`, if this one (written `uri`) did not determine the version.
    pub(crate) fn at_version(&self, uri: &str, version: Option<u64>) -> String {
        match (self, version) {
            (Self::Registered { name, .. }, Some(version)) => format!("models:/{name}/{version}"),
            _ => uri.to_owned(),
        }
    }

    /// Parses the part after `scheme:`.
    ///
    /// # Errors
    /// What is wrong with it, as a part of a sentence.
    pub(crate) fn parse(scheme: &str, rest: &str) -> Result<Self, String> {
        let (host, path) = match rest.strip_prefix("//") {
            Some(rest) => rest.split_once('/').unwrap_or((rest, "")),
            None => ("", rest.trim_start_matches('/')),
        };
        let path = path.trim_matches('/');
        if scheme == "mlflow-artifacts" {
            let host = (!host.is_empty()).then(|| host.to_owned());
            return Ok(Self::Artifacts { host, path: path.to_owned() });
        }
        if !host.is_empty() {
            return Err(format!(
                "it names the host {host}, but only the configured tracking server is used; write {scheme}:/…"
            ));
        }
        if scheme == "runs" {
            let (run, path) = path.split_once('/').unwrap_or((path, ""));
            if run.is_empty() {
                return Err("it names no run; write runs:/RUN_ID/path".to_owned());
            }
            return Ok(Self::Run { run: run.to_owned(), path: path.to_owned() });
        }
        Self::model(path)
    }

    fn model(path: &str) -> Result<Self, String> {
        const FORMS: &str = "write models:/NAME/3, models:/NAME/latest, models:/NAME/Production or models:/NAME@alias";
        let registered = |name: &str, pick| {
            if name.is_empty() {
                return Err(format!("it names no model; {FORMS}"));
            }
            Ok(Self::Registered { name: name.to_owned(), pick })
        };
        match path.split_once('/') {
            Some((_, more)) if more.contains('/') => Err(format!("it has too many parts; {FORMS}")),
            Some((name, version)) if version.bytes().all(|byte| byte.is_ascii_digit()) => match version.parse() {
                Ok(version) => registered(name, Pick::Version(version)),
                Err(_) => Err(format!("{version} is not a version; {FORMS}")),
            },
            Some((name, latest)) if latest.eq_ignore_ascii_case("latest") => registered(name, Pick::Latest),
            Some((name, stage)) => registered(name, Pick::Stage(stage.to_owned())),
            None => match path.rsplit_once('@') {
                Some((name, alias)) if !alias.is_empty() => registered(name, Pick::Alias(alias.to_owned())),
                None if path.starts_with("m-") => Ok(Self::Logged { id: path.to_owned() }),
                Some(_) | None => Err(format!("it names no version; {FORMS}")),
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_form_of_address_is_read() {
        let parse = |scheme, rest| Address::parse(scheme, rest).expect(rest);
        let registered = |name: &str, pick| Address::Registered { name: name.to_owned(), pick };
        assert_eq!(parse("models", "/iris/Production"), registered("iris", Pick::Stage("Production".into())));
        assert_eq!(parse("models", "/iris/3"), registered("iris", Pick::Version(3)));
        assert_eq!(parse("models", "/iris/Latest"), registered("iris", Pick::Latest));
        assert_eq!(parse("models", "/iris@champion"), registered("iris", Pick::Alias("champion".into())));
        assert_eq!(parse("models", "///iris/3"), registered("iris", Pick::Version(3)));
        assert_eq!(parse("models", "/m-0a1b"), Address::Logged { id: "m-0a1b".into() });
        let run = |path: &str| Address::Run { run: "r1".into(), path: path.into() };
        assert_eq!(parse("runs", "/r1/a/model/"), run("a/model"));
        assert_eq!(parse("runs", "/r1"), run(""));
        let files = |host: Option<&str>| Address::Artifacts { host: host.map(Into::into), path: "0/x".into() };
        assert_eq!(parse("mlflow-artifacts", "/0/x"), files(None));
        assert_eq!(parse("mlflow-artifacts", "//h:5000/0/x"), files(Some("h:5000")));
    }

    #[test]
    fn an_address_that_names_no_version_says_how_one_is_written() {
        for wrong in ["/iris", "/iris@", "/", "/iris/1/2", "//", "/@champion", "//host/iris/1"] {
            let said = Address::parse("models", wrong).expect_err(wrong);
            assert!(said.contains("write models:/"), "{said}");
        }
        assert!(Address::parse("runs", "/").expect_err("no run").contains("runs:/RUN_ID/path"));
    }

    #[test]
    fn the_files_of_a_logged_model_are_final_and_those_of_a_run_are_not() {
        let tracked = |path: &str| Tracked { server: "http://h".parse().expect("a URL"), path: path.to_owned() };
        assert!(tracked("0/models/m-12/artifacts").is_final());
        assert!(!tracked("0/12ab/artifacts/model").is_final());
    }
}
