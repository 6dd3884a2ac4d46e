//! MLflow addresses: `models:/`, `runs:/` and `mlflow-artifacts:/`, and what they currently resolve to.
//!
//! Such an address is an entry of a registry. [`resolve`] asks the tracking server (or reads an `mlruns` folder) and
//! returns the location of the files, which is then fetched like any other. A stage or an alias can move, but the files
//! of one version do not. So the cache uses the location as the key, never the address.

mod books;
mod folder;
mod server;

use std::fmt;

pub(crate) use server::Server;

use crate::{
    Config,
    error::{ArtifactError, Failure},
    place::Place,
};

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

/// The location of the files, and the resolved version.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Resolved {
    pub(crate) place: Place,
    /// The location as text, equal for equal files.
    pub(crate) location: String,
    /// The version, if the address did not determine it.
    pub(crate) version: Option<u64>,
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

/// Resolves an address now.
pub(crate) async fn resolve(address: &Address, config: &Config) -> Result<Resolved, Failure> {
    let tracking = config.tracking();
    if let Some(folder) = folder::of(&tracking)? {
        return folder::resolve(&folder, address);
    }
    let server = Server::tracking(config)?;
    let (location, version) = match address {
        Address::Registered { name, pick } => {
            let registry = Server::registry(config)?;
            let version = books::version(&registry, name, pick).await?;
            let location = books::of_version(&registry, name, version).await?;
            (location, (!matches!(pick, Pick::Version(_))).then_some(version))
        }
        Address::Logged { id } => (books::of_logged(&server, id).await?, None),
        Address::Run { run, path } => (books::of_run(&server, run, path).await?, None),
        Address::Artifacts { host, path } => (artifacts(host.as_deref(), path), None),
    };
    let (place, location) = place(&location, &server, config)?;
    Ok(Resolved { place, location, version })
}

fn artifacts(host: Option<&str>, path: &str) -> String {
    match host {
        Some(host) => format!("mlflow-artifacts://{host}/{path}"),
        None => format!("mlflow-artifacts:/{path}"),
    }
}

/// The location that a tracking server returned.
fn place(location: &str, server: &Server, config: &Config) -> Result<(Place, String), Failure> {
    if let Some(rest) = location.strip_prefix("mlflow-artifacts:") {
        let refused = |reason| Failure::Refused("artifact_refused", reason);
        let Address::Artifacts { host, path } = Address::parse("mlflow-artifacts", rest).map_err(refused)? else {
            return Err(Failure::Refused("artifact_refused", format!("{location} is not a location of files")));
        };
        if path.split('/').any(|part| part == "..") {
            return Err(Failure::Refused("artifact_unsafe", format!("{location} leaves its folder with `..`")));
        }
        let tracked = Tracked { server: server.at_host(host.as_deref())?, path };
        let location = tracked.to_string();
        return Ok((Place::Tracked(tracked), location));
    }
    let place = Place::parse(location, config).map_err(|error| {
        let reason = if let ArtifactError::Refused { reason, .. } = error { reason } else { error.to_string() };
        Failure::Refused("artifact_refused", format!("its files are at {location}: {reason}"))
    })?;
    match &place {
        Place::Local(path) if !path.exists() => Err(Failure::Absent(format!(
            "the MLflow server keeps the files at {location} on its own machine, which are not here; start it with \
             --serve-artifacts, or keep them in a bucket"
        ))),
        Place::Mlflow(_) => Err(Failure::Refused(
            "artifact_refused",
            format!("the MLflow server answers with {location}, which is no place of files"),
        )),
        Place::Local(_) | Place::Http(_) | Place::Bucket { .. } | Place::Tracked(_) => Ok((place, location.to_owned())),
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
