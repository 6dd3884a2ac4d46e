//! `deploy`: deploys a model.

use api::State;
use reqwest::Method;
use serde_json::{Map, Value, json};

use super::{
    Config,
    changed::{Change, since_deployed},
    http::{Control, DEPLOYMENTS, Found, found},
    source, view,
    wait::until_serving,
};
use crate::{
    args,
    exit::Failure,
    output::{show, tell},
};

/// Creates a deployment of a model, or changes the one with the given name.
///
/// # Errors
/// An error of the control plane; unless `--no-wait`, the errors of [`until_serving`].
pub async fn deploy(config: &Config, sources: &artifact::Config, args: &args::Deploy) -> Result<(), Failure> {
    let control = Control::new(config)?;
    let model =
        source::model(&control, sources, &args.source, args.model_version.as_deref(), args.digest.as_deref()).await?;
    let payload = payload(args, model)?;
    let present = match &args.name {
        Some(name) => control.by_name(name).await?,
        None => None,
    };
    let before = present.as_ref().map(|present| present.deployment.revision);
    let mut deployed = match present {
        Some(present) => control.patch(&present, &payload).await?,
        None => create(&control, payload).await?,
    };
    let mut unchanged = before == Some(deployed.deployment.revision);
    if unchanged
        && let Change::Yes(reason) | Change::Unknown(reason) = since_deployed(&control, sources, &deployed).await?
    {
        tell(format!("{reason}: making a new revision"));
        deployed = control.redeploy(&deployed).await?;
        unchanged = false;
    }
    let revision = deployed.deployment.revision;
    if !args.no_wait {
        let patience = args.patience.wait_timeout;
        deployed = until_serving(&control, config, deployed.deployment.id, revision, patience).await?;
    }
    show(args.output.output, &deployed.raw, || sentence(&deployed, unchanged))
}

async fn create(control: &Control, mut payload: Value) -> Result<Found, Failure> {
    drop_nulls(&mut payload);
    // A POST that is repeated after a broken connection must not create a second deployment.
    let key = uuid::Uuid::new_v4().to_string();
    let request = control.request(Method::POST, DEPLOYMENTS).header("idempotency-key", key).json(&payload);
    found(control.send(request).await?).await
}

/// The fields from the arguments: without the nulls a payload, with them a merge patch.
fn payload(args: &args::Deploy, model: Value) -> Result<Value, Failure> {
    let mut payload = Map::new();
    payload.insert("model".to_owned(), model);
    let mut put = |field: &str, value: Option<Value>| {
        if let Some(value) = value {
            payload.insert(field.to_owned(), value);
        }
    };
    put("name", args.name.clone().map(Value::from));
    put("placement", args.placement.clone().map(Value::from));
    put("replicas", args.replicas.map(Value::from));
    put("request_timeout_ms", args.timeout.map(|timeout| json!(timeout.as_millis())));
    let files = paths(&args.env_from_file)?;
    // Setting a variable in one way removes its other setting.
    put("env", either(&args.env, &files));
    put("env_from_file", either(&files, &args.env));
    let here = source::here()?;
    put("python", args.python.as_ref().map(|python| Value::from(source::program(python, &here))));
    put("labels", map(&args.label));
    put("request_res", amounts(&args.cpu, &args.memory));
    put("limit_res", amounts(&args.cpu_limit, &args.memory_limit));
    Ok(Value::Object(payload))
}

/// `set`, and null for the variables in `elsewhere`.
fn either(set: &[(String, String)], elsewhere: &[(String, String)]) -> Option<Value> {
    let mut map: Map<_, _> = elsewhere.iter().map(|(key, _)| (key.clone(), Value::Null)).collect();
    map.extend(set.iter().map(|(key, value)| (key.clone(), Value::from(value.clone()))));
    (!map.is_empty()).then_some(Value::Object(map))
}

/// Files by their absolute paths.
fn paths(pairs: &[(String, String)]) -> Result<Vec<(String, String)>, Failure> {
    let whole = |(key, path): &(String, String)| match std::path::absolute(path) {
        Ok(path) => Ok((key.clone(), path.to_string_lossy().into_owned())),
        Err(_) => Err(Failure::usage(format!("--env-from-file {key}={path}: name the file that holds the value"))),
    };
    pairs.iter().map(whole).collect()
}

fn map(pairs: &[(String, String)]) -> Option<Value> {
    let map: Map<_, _> = pairs.iter().map(|(key, value)| (key.clone(), Value::from(value.clone()))).collect();
    (!map.is_empty()).then_some(Value::Object(map))
}

fn amounts(cpu: &Option<String>, memory: &Option<String>) -> Option<Value> {
    let mut amounts = Map::new();
    amounts.extend(cpu.clone().map(|cpu| ("cpu".to_owned(), Value::from(cpu))));
    amounts.extend(memory.clone().map(|memory| ("memory".to_owned(), Value::from(memory))));
    (!amounts.is_empty()).then_some(Value::Object(amounts))
}

fn drop_nulls(value: &mut Value) {
    if let Value::Object(fields) = value {
        fields.values_mut().for_each(drop_nulls);
        fields.retain(|_, value| !value.is_null() && value.as_object().is_none_or(|object| !object.is_empty()));
    }
}

pub(super) fn sentence(deployed: &Found, unchanged: bool) -> String {
    let (deployment, who) = (&deployed.deployment, view::who(&deployed.deployment));
    let handle = deployment.spec.name.clone().unwrap_or_else(|| deployment.id.to_string());
    let (ready, wanted) = (deployment.status.ready_replicas, deployment.spec.replicas);
    let state = deployment.status.state;
    let revision = deployment.revision;
    let same = if unchanged { "\nNothing that runs has changed." } else { "" };
    match (&deployment.url, state) {
        (Some(url), State::Active) => format!(
            "{who} is active: revision {revision}, {ready} of {wanted} replicas ready{same}\n  {url}\n\n\
             Try it:  modelway predict {handle}\nLook:    modelway describe {handle}\n"
        ),
        (Some(_) | None, _) => {
            format!(
                "{who} is {state}: revision {revision}, {ready} of {wanted} replicas ready{same}\n\nLook: modelway describe {handle}\n"
            )
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;
    use crate::args::{Cli, Command};

    fn payload_of(line: &str) -> Value {
        let words = ["modelway", "deploy"].into_iter().chain(line.split(' '));
        let Some(Command::Deploy(args)) = Cli::try_parse_from(words).expect("it can be parsed").command else {
            panic!("not a deploy")
        };
        let (bucket, version) = args.source.rsplit_once('/').expect("it has a version");
        let model = source::of_files(bucket, version, None);
        let mut payload = payload(&args, model).expect("it can be understood");
        drop_nulls(&mut payload);
        payload
    }

    #[test]
    fn every_flag_is_a_field_and_what_is_not_given_is_left_to_the_server() {
        assert_eq!(
            payload_of(
                "s3://models/iris/3 --name iris --replicas 2 --placement east --cpu 500m --memory-limit 1Gi --timeout 1500ms --env A=b=c --label t=x --python /venv"
            ),
            json!({
                "model": {"type": "single", "bucket": "s3://models/iris", "prefix": "", "version": "3"},
                "name": "iris", "placement": "east", "replicas": 2, "request_timeout_ms": 1500, "env": {"A": "b=c"}, "python": "/venv", "labels": {"t": "x"},
                "request_res": {"cpu": "500m"}, "limit_res": {"memory": "1Gi"}
            })
        );
    }

    #[test]
    fn a_payload_is_one_that_the_control_plane_takes() {
        for line in ["s3://models/iris/3 --name iris --cpu 1", "s3://models/iris/3 --replicas 0 --python python3"] {
            assert!(api::DeploymentSpec::from_json(payload_of(line)).is_ok(), "{line}");
        }
    }
}
