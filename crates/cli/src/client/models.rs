//! `models`: the registry.

use api::{
    deployment::is_mlflow,
    registry::{ModelVersionView, RegisteredModel},
};
use reqwest::Method;
use serde_json::{Map, Value, json};

use super::{
    Config,
    http::{Control, MODELS},
    source,
};
use crate::{
    args::{ModelAddVersion, ModelDelete, ModelRegister, Models},
    exit::{Exit, Failure},
    output::{Table, at, print, show},
};

/// Runs a command for registered models.
///
/// # Errors
/// An error of the control plane.
pub async fn models(config: &Config, sources: &artifact::Config, command: &Models) -> Result<(), Failure> {
    run(config, sources, command).await.map_err(in_commands)
}

/// The error of the control plane suggests a request; here it becomes a command.
fn in_commands(failure: Failure) -> Failure {
    if failure.exit != Exit::NotFound {
        return failure;
    }
    let message = failure.message.split("; GET ").next().unwrap_or_default();
    Failure::new(Exit::NotFound, message).next("List them: modelway models list")
}

async fn run(config: &Config, sources: &artifact::Config, command: &Models) -> Result<(), Failure> {
    match command {
        Models::Register(args) => register(&Control::new(config)?, args).await,
        Models::AddVersion(args) => add_version(&Control::new(config)?, sources, args).await,
        Models::Delete(args) => delete(&Control::new(config)?, args).await,
        Models::List { output, .. } => {
            let items = Control::new(config)?.all(MODELS, &[]).await?;
            let models: Vec<RegisteredModel> = understand(Value::Array(items.clone()))?;
            show(output.output, &json!({"items": items}), || match models.as_slice() {
                [] => "No model is registered. Begin with: modelway models register NAME\n".to_owned(),
                models => model_table(models),
            })
        }
        Models::Get { name, output, .. } => {
            let control = Control::new(config)?;
            let raw: Value = control.get(&format!("{MODELS}/{name}")).await?;
            let items = versions(&control, name).await?;
            let model: RegisteredModel = understand(raw.clone())?;
            let versions: Vec<ModelVersionView> = understand(Value::Array(items.clone()))?;
            show(output.output, &json!({"model": raw, "versions": items}), || {
                format!("{}\n{}", model_table(&[model]), version_table(&versions))
            })
        }
        Models::Digest { path } => {
            let digest = crate::tool::digest(path).await?;
            print(digest + "\n")
        }
    }
}

async fn versions(control: &Control, name: &str) -> Result<Vec<Value>, Failure> {
    let mut page: Value = control.get(&format!("{MODELS}/{name}/versions")).await?;
    Ok(page["items"].as_array_mut().map(std::mem::take).unwrap_or_default())
}

async fn register(control: &Control, args: &ModelRegister) -> Result<(), Failure> {
    let labels: Map<_, _> = args.label.iter().map(|(key, value)| (key.clone(), Value::from(value.clone()))).collect();
    let body = json!({"name": args.name, "description": args.description, "labels": labels});
    let raw: Value = control.json(control.request(Method::POST, MODELS).json(&body)).await?;
    let name = &args.name;
    show(args.output.output, &raw, || {
        format!("{name} is registered\n\nAdd a version: modelway models add-version {name} VERSION SOURCE\n")
    })
}

async fn add_version(control: &Control, sources: &artifact::Config, args: &ModelAddVersion) -> Result<(), Failure> {
    let mut body = Map::new();
    body.insert("version".to_owned(), Value::from(args.version.clone()));
    let uri = match args.source.as_ref().or(args.uri.as_ref()) {
        Some(given) if is_mlflow(given) => Some(source::resolve(sources, given).await?.resolved),
        Some(given) => Some(source::absolute(given, &source::here()?)),
        None => None,
    };
    for (field, value) in [("uri", &uri), ("image", &args.image), ("format", &args.format), ("digest", &args.digest)] {
        body.extend(value.clone().map(|value| (field.to_owned(), Value::from(value))));
    }
    let path = format!("{MODELS}/{}/versions", args.model);
    let raw: Value = control.json(control.request(Method::POST, &path).json(&body)).await?;
    let (model, version) = (&args.model, &args.version);
    show(args.output.output, &raw, || {
        format!(
            "{model} has version {version}\n\nDeploy it: modelway deploy models:/{model}/{version} --name {model}\n"
        )
    })
}

async fn delete(control: &Control, args: &ModelDelete) -> Result<(), Failure> {
    let model = &args.model;
    let (path, what) = match &args.version {
        Some(version) => (format!("{MODELS}/{model}/versions/{version}"), format!("version {version} of {model}")),
        None => (format!("{MODELS}/{model}"), model.clone()),
    };
    control.send(control.request(Method::DELETE, &path)).await?;
    print(format!("{what} is removed\n"))
}

fn understand<T: serde::de::DeserializeOwned>(value: Value) -> Result<T, Failure> {
    serde_json::from_value(value).map_err(|error| Failure::of(&error))
}

fn model_table(models: &[RegisteredModel]) -> String {
    let mut table = Table::new(["NAME", "LABELS", "CREATED", "DESCRIPTION"]);
    for model in models {
        let labels: Vec<_> = model.spec.labels.iter().map(|(key, value)| format!("{key}={value}")).collect();
        let labels = if labels.is_empty() { "-".to_owned() } else { labels.join(",") };
        table.row([model.spec.name.clone(), labels, at(model.created_at), model.spec.description.clone()]);
    }
    table.text()
}

fn version_table(versions: &[ModelVersionView]) -> String {
    let mut table = Table::new(["VERSION", "FORMAT", "CREATED", "SOURCE"]);
    for version in versions {
        let spec = &version.spec;
        table.row([
            spec.version.clone(),
            spec.format.clone().unwrap_or_else(|| "-".to_owned()),
            at(version.created_at),
            spec.uri.clone().or_else(|| spec.image.clone()).unwrap_or_default(),
        ]);
    }
    table.text()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unknown_model_is_answered_with_the_command_that_lists_them() {
        let said = "there is no registered model `irsi`; GET /v1/registeredModels lists the registered models";
        let text = in_commands(Failure::new(Exit::NotFound, said)).to_string();
        assert_eq!(text, "error: there is no registered model `irsi`\n\nList them: modelway models list");
        let other = in_commands(Failure::failed("the model `iris` has versions; delete those first"));
        assert!(other.to_string().ends_with("delete those first"));
    }
}
