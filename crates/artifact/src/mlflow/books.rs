//! The records of a tracking server: registered models, their versions, logged models, runs.
//!
//! If something does not exist, the error lists what exists: the nearest name, the versions, the stages, the aliases.

use api::decode::nearest;
use serde::Deserialize;
use serde_json::json;

use super::{
    address::Pick,
    server::{Complaint, Server},
};
use crate::error::Failure;

/// Maximum number of names in an error.
const SHOWN: usize = 10;
/// How many registered models are searched for a similar name.
const LOOKED_THROUGH: &str = "200";
/// The stages that MLflow knows.
const STAGES: [&str; 4] = ["None", "Staging", "Production", "Archived"];

#[derive(Debug, Deserialize)]
struct Registered {
    registered_model: RegisteredModel,
}

#[derive(Debug, Deserialize)]
struct RegisteredModel {
    name: String,
    #[serde(default)]
    latest_versions: Vec<ModelVersion>,
    #[serde(default)]
    aliases: Vec<Alias>,
}

#[derive(Debug, Deserialize)]
struct ModelVersion {
    version: String,
    #[serde(default)]
    current_stage: String,
}

#[derive(Debug, Deserialize)]
struct Alias {
    alias: String,
    version: String,
}

/// The version that `pick` currently means.
pub(super) async fn version(server: &Server, name: &str, pick: &Pick) -> Result<u64, Failure> {
    let said = match pick {
        Pick::Version(version) => return Ok(*version),
        Pick::Latest | Pick::Stage(_) | Pick::Alias(_) => {
            let model = registered(server, name).await?;
            match pick {
                Pick::Version(_) | Pick::Latest => newest(&model)?.to_owned(),
                Pick::Stage(stage) => in_stage(&model, stage)?.to_owned(),
                Pick::Alias(alias) => under_alias(&model, alias)?.to_owned(),
            }
        }
    };
    said.parse().map_err(|_| {
        Failure::Refused(
            "artifact_refused",
            format!("the registry calls a version of `{name}` {said:?}, which is no number"),
        )
    })
}

/// The location of a version's files.
pub(super) async fn of_version(server: &Server, name: &str, version: u64) -> Result<String, Failure> {
    #[derive(Deserialize)]
    struct Found {
        #[serde(default)]
        artifact_uri: String,
    }
    let version = version.to_string();
    let found =
        server.get::<Found>("model-versions/get-download-uri", &[("name", name), ("version", &version)]).await?;
    match found {
        Ok(found) if !found.artifact_uri.is_empty() => Ok(found.artifact_uri),
        Ok(_) => Err(Failure::Absent(format!("version {version} of `{name}` has no files yet"))),
        Err(complaint) if complaint.is_absence() => Err(no_version(server, name, &version).await?),
        Err(complaint) => Err(refused(server, complaint)),
    }
}

/// The location of a logged model's files.
pub(super) async fn of_logged(server: &Server, id: &str) -> Result<String, Failure> {
    #[derive(Deserialize)]
    struct Found {
        model: Logged,
    }
    match server.get::<Found>(&format!("logged-models/{id}"), &[]).await? {
        Ok(found) => Ok(found.model.info.artifact_uri),
        Err(complaint) if complaint.is_absence() => Err(Failure::Absent(format!(
            "the MLflow server {} has no logged model `{id}`; a registered one is written models:/NAME/VERSION",
            server.shown()
        ))),
        Err(complaint) => Err(refused(server, complaint)),
    }
}

#[derive(Debug, Deserialize)]
struct Logged {
    info: LoggedInfo,
}

#[derive(Debug, Deserialize)]
struct LoggedInfo {
    artifact_uri: String,
}

/// The location of a run's artefact: the model that it logged under that name, otherwise its own file or folder.
pub(super) async fn of_run(server: &Server, run: &str, path: &str) -> Result<String, Failure> {
    #[derive(Deserialize)]
    struct Found {
        run: Run,
    }
    #[derive(Deserialize)]
    struct Run {
        info: Info,
    }
    #[derive(Deserialize)]
    struct Info {
        experiment_id: String,
        artifact_uri: String,
    }
    let info = match server.get::<Found>("runs/get", &[("run_id", run)]).await? {
        Ok(found) => found.run.info,
        Err(complaint) if complaint.is_absence() => {
            return Err(Failure::Absent(format!("the MLflow server {} has no run `{run}`", server.shown())));
        }
        Err(complaint) => return Err(refused(server, complaint)),
    };
    let (name, rest) = path.split_once('/').unwrap_or((path, ""));
    let base = logged_by(server, run, &info.experiment_id, name).await?;
    let (base, rest) = match base {
        Some(base) => (base, rest),
        None => (info.artifact_uri, path),
    };
    Ok(if rest.is_empty() { base } else { format!("{}/{rest}", base.trim_end_matches('/')) })
}

/// The model that a run logged under a name. Servers before MLflow 3 have none.
async fn logged_by(server: &Server, run: &str, experiment: &str, name: &str) -> Result<Option<String>, Failure> {
    #[derive(Deserialize)]
    struct Found {
        #[serde(default)]
        models: Vec<Logged>,
    }
    // MLflow allows no such character in names; it would end the text.
    if name.is_empty() || name.contains(['\'', '"', '\\']) || run.contains(['\'', '"', '\\']) {
        return Ok(None);
    }
    let body = json!({
        "experiment_ids": [experiment],
        "filter": format!("name = '{name}' AND source_run_id = '{run}'"),
        "max_results": 1,
    });
    match server.post::<Found>("logged-models/search", &body).await {
        Ok(Ok(found)) => Ok(found.models.into_iter().next().map(|model| model.info.artifact_uri)),
        Ok(Err(_)) | Err(Failure::Refused("artifact_refused", _)) => Ok(None),
        Err(failure) => Err(failure),
    }
}

async fn registered(server: &Server, name: &str) -> Result<RegisteredModel, Failure> {
    match server.get::<Registered>("registered-models/get", &[("name", name)]).await? {
        Ok(found) => Ok(found.registered_model),
        Err(complaint) if complaint.is_absence() => Err(no_model(server, name).await?),
        Err(complaint) => Err(refused(server, complaint)),
    }
}

fn number(version: &ModelVersion) -> u64 {
    version.version.parse().unwrap_or(0)
}

fn newest(model: &RegisteredModel) -> Result<&str, Failure> {
    let newest = model.latest_versions.iter().max_by_key(|version| number(version));
    match newest {
        Some(version) => Ok(&version.version),
        None => Err(Failure::Absent(format!("`{}` is registered, but has no version yet", model.name))),
    }
}

fn in_stage<'m>(model: &'m RegisteredModel, stage: &str) -> Result<&'m str, Failure> {
    let found = model.latest_versions.iter().find(|version| version.current_stage.eq_ignore_ascii_case(stage));
    if let Some(version) = found {
        return Ok(&version.version);
    }
    let name = &model.name;
    if let Some(alias) = model.aliases.iter().find(|alias| alias.alias == stage) {
        let alias = &alias.alias;
        return Err(Failure::Absent(format!("`{alias}` is an alias, not a stage: write models:/{name}@{alias}")));
    }
    if !STAGES.iter().any(|known| known.eq_ignore_ascii_case(stage)) {
        let hint = match nearest(stage, STAGES) {
            Some(near) => format!("did you mean {near}?"),
            None => format!("the stages are {}; an alias is written models:/{name}@alias", STAGES.join(", ")),
        };
        return Err(Failure::Absent(format!("`{stage}` is not a stage; {hint}")));
    }
    let mut there: Vec<_> = model.latest_versions.iter().collect();
    there.sort_by_key(|version| std::cmp::Reverse(number(version)));
    let there: Vec<_> = there
        .into_iter()
        .take(SHOWN)
        .map(|version| match version.current_stage.as_str() {
            "" | "None" => format!("version {} in no stage", version.version),
            stage => format!("version {} in {stage}", version.version),
        })
        .collect();
    let there =
        if there.is_empty() { "there is no version yet".to_owned() } else { format!("there is {}", there.join(", ")) };
    Err(Failure::Absent(format!("no version of `{name}` is in {stage}; {there}")))
}

fn under_alias<'m>(model: &'m RegisteredModel, alias: &str) -> Result<&'m str, Failure> {
    if let Some(found) = model.aliases.iter().find(|known| known.alias == alias) {
        return Ok(&found.version);
    }
    let name = &model.name;
    let known: Vec<_> = model
        .aliases
        .iter()
        .take(SHOWN)
        .map(|known| format!("`{}` (version {})", known.alias, known.version))
        .collect();
    let hint = match nearest(alias, model.aliases.iter().map(|known| known.alias.as_str())) {
        Some(near) => format!("did you mean `{near}`?"),
        None if known.is_empty() => "it has none".to_owned(),
        None => format!("it has {}", known.join(", ")),
    };
    Err(Failure::Absent(format!("`{name}` has no alias `{alias}`; {hint}")))
}

/// The error for a model that is not registered, with the nearest registered name.
async fn no_model(server: &Server, name: &str) -> Result<Failure, Failure> {
    #[derive(Deserialize)]
    struct Found {
        #[serde(default)]
        registered_models: Vec<RegisteredModel>,
    }
    let all = server.get::<Found>("registered-models/search", &[("max_results", LOOKED_THROUGH)]).await?;
    let names: Vec<_> =
        all.map(|found| found.registered_models).unwrap_or_default().into_iter().map(|model| model.name).collect();
    let hint = match nearest(name, names.iter().map(String::as_str)) {
        Some(near) => format!("did you mean `{near}`?"),
        None if names.is_empty() => "it has no models".to_owned(),
        None => {
            let more = if names.len() > SHOWN { ", …" } else { "" };
            format!("it has {}{more}", names.iter().take(SHOWN).cloned().collect::<Vec<_>>().join(", "))
        }
    };
    Ok(Failure::Absent(format!("the registry at {} has no model `{name}`; {hint}", server.shown())))
}

/// The error for a missing version, with the existing ones.
async fn no_version(server: &Server, name: &str, version: &str) -> Result<Failure, Failure> {
    #[derive(Deserialize)]
    struct Found {
        #[serde(default)]
        model_versions: Vec<ModelVersion>,
    }
    registered(server, name).await?;
    let filter = format!("name='{}'", name.replace('\'', ""));
    let query = [("filter", filter.as_str()), ("max_results", "10"), ("order_by", "version_number DESC")];
    let found = server.get::<Found>("model-versions/search", &query).await?;
    let there: Vec<_> =
        found.map(|found| found.model_versions).unwrap_or_default().into_iter().map(|found| found.version).collect();
    let there = if there.is_empty() { "it has none".to_owned() } else { format!("it has {}", there.join(", ")) };
    Ok(Failure::Absent(format!("`{name}` has no version {version}; {there}")))
}

fn refused(server: &Server, complaint: Complaint) -> Failure {
    let Complaint { error_code, message } = complaint;
    Failure::Refused("artifact_refused", format!("the MLflow server {} says {error_code}: {message}", server.shown()))
}
