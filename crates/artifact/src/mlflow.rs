//! MLflow addresses: `models:/`, `runs:/` and `mlflow-artifacts:/`, and what they currently resolve to.
//!
//! Such an address is an entry of a registry. [`resolve`] asks the tracking server (or reads an `mlruns` folder) and
//! returns the location of the files, which is then fetched like any other. A stage or an alias can move, but the files
//! of one version do not. So the cache uses the location as the key, never the address.

pub(crate) mod address;
mod books;
mod folder;
mod resolved;
mod server;

pub(crate) use server::Server;

use self::{
    address::{Address, Pick, Tracked},
    resolved::Resolved,
};
use crate::{
    Config,
    error::{ArtifactError, Failure},
    place::Place,
};

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
