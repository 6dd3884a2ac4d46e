//! `predict`: data in, an answer out.

mod answer;
mod request;

use std::io::Read as _;

use api::{DeploymentId, decode::nearest};
use reqwest::{Response, StatusCode, Url};
use serde::Deserialize;
use serde_json::Value;

use super::{
    Config,
    http::{parse_url, root_cause},
};
use crate::{
    args,
    exit::{Exit, Failure},
    output::{print, show},
};

/// The most that is read as data, in bytes.
const DATA_BYTES: u64 = 256 << 20;

/// What a model says of itself: Open Inference Protocol, "Model Metadata Response JSON Object".
#[derive(Clone, Debug, Deserialize)]
struct Metadata {
    name: String,
    #[serde(default)]
    inputs: Vec<TensorMetadata>,
    #[serde(default)]
    outputs: Vec<TensorMetadata>,
}

/// One input or output: its name, its datatype, and its shape with -1 for what varies.
#[derive(Clone, Debug, Deserialize)]
struct TensorMetadata {
    name: String,
    datatype: String,
    shape: Vec<i64>,
}

/// Sends data to a model and shows its answer.
///
/// # Errors
/// Data that cannot be understood, the gateway's refusal, nobody there.
pub async fn predict(config: &Config, args: &args::Predict) -> Result<(), Failure> {
    let model = Model::new(config, &args.deployment, args.model_version.as_deref())?;
    let Some(given) = &args.data else {
        return print(request::usage(&model.metadata().await?, &args.deployment));
    };
    let data: Value = serde_json::from_str(&read(given)?).map_err(|error| {
        let next = format!("See what the model takes: modelway predict {}", args.deployment);
        Failure::usage(format!("--data is not JSON: {error}")).next(next)
    })?;
    let body = if request::is_whole(&data) { data } else { request::build(&model.metadata().await?, data)? };
    let answer = model.infer(&body).await?;
    show(args.output.output, &answer, || answer::table(&answer))
}

fn read(given: &str) -> Result<String, Failure> {
    let mut text = String::new();
    let unreadable = |error: std::io::Error| Failure::failed(format!("{given} cannot be read: {error}"));
    match given.strip_prefix('@') {
        Some(file) => {
            let input = std::fs::File::open(file).map_err(unreadable)?;
            input.take(DATA_BYTES).read_to_string(&mut text).map_err(unreadable)?;
        }
        None if given == "-" => {
            std::io::stdin().lock().take(DATA_BYTES).read_to_string(&mut text).map_err(unreadable)?;
        }
        None => given.clone_into(&mut text),
    }
    Ok(text)
}

/// One model behind the gateway.
struct Model {
    http: reqwest::Client,
    url: Url,
    name: String,
}

impl Model {
    fn new(config: &Config, who: &str, version: Option<&str>) -> Result<Self, Failure> {
        let mut url = parse_url("client.gateway_url", &config.gateway_url)?;
        let name = who.parse::<DeploymentId>().map_or_else(|_| who.to_owned(), |id| id.to_string());
        let version = version.map(|version| format!("/versions/{version}")).unwrap_or_default();
        url.set_path(&format!("{}/v2/models/{name}{version}", url.path().trim_end_matches('/')));
        let http = base::client::builder_for(&config.gateway_url).timeout(config.timeout()).build();
        let http = http.map_err(|error| Failure::of(&error))?;
        Ok(Self { http, url, name })
    }

    async fn metadata(&self) -> Result<Metadata, Failure> {
        let response = self.http.get(self.url.clone()).send().await;
        let body = self.answer(response).await?;
        serde_json::from_slice(&body)
            .map_err(|error| Failure::failed(format!("the metadata of {} cannot be understood: {error}", self.name)))
    }

    async fn infer(&self, body: &Value) -> Result<Value, Failure> {
        let mut url = self.url.clone();
        url.set_path(&format!("{}/infer", url.path()));
        let response = self.http.post(url).json(body).send().await;
        let answer = self.answer(response).await?;
        serde_json::from_slice(&answer)
            .map_err(|error| Failure::failed(format!("the answer of {} cannot be understood: {error}", self.name)))
    }

    async fn answer(&self, response: reqwest::Result<Response>) -> Result<Vec<u8>, Failure> {
        let response = response.map_err(|error| self.unreachable(&error))?;
        let status = response.status();
        let body = response.bytes().await.map_err(|error| self.unreachable(&error))?.to_vec();
        if status.is_success() {
            return Ok(body);
        }
        let text = String::from_utf8_lossy(&body).into_owned();
        let reason = serde_json::from_str::<Value>(&text)
            .ok()
            .and_then(|body| body["error"].as_str().map(str::to_owned))
            .unwrap_or(text);
        Err(self.refused(status, &reason))
    }

    fn refused(&self, status: StatusCode, reason: &str) -> Failure {
        let name = &self.name;
        match status {
            StatusCode::NOT_FOUND => {
                Failure::new(Exit::NotFound, reason.to_owned()).next("See what there is: modelway list")
            }
            StatusCode::SERVICE_UNAVAILABLE => Failure::failed(format!("{name} does not serve now: {reason}"))
                .next(format!("Why? modelway describe {name}")),
            StatusCode::GATEWAY_TIMEOUT => Failure::new(Exit::TimedOut, reason.to_owned()),
            _ => Failure::failed(format!("{name} refuses ({status}): {reason}"))
                .next(format!("See what it takes: modelway predict {name}")),
        }
    }

    fn unreachable(&self, error: &reqwest::Error) -> Failure {
        let origin = self.url.origin().ascii_serialization();
        if error.is_timeout() && !error.is_connect() {
            let next = "Try again, or set client.timeout_ms higher.";
            return Failure::new(Exit::TimedOut, format!("the gateway at {origin} did not answer in time")).next(next);
        }
        Failure::new(Exit::Unreachable, format!("nobody answers at {origin}: {}", root_cause(error)))
            .next("Start one with `modelway up`, or say where it is with --gateway-url.")
    }
}

impl Metadata {
    fn input(&self, name: &str) -> Result<&TensorMetadata, Failure> {
        self.inputs.iter().find(|input| input.name == name).ok_or_else(|| {
            let names: Vec<_> = self.inputs.iter().map(|input| input.name.as_str()).collect();
            let failure = Failure::usage(format!("{} has no input `{name}`", self.name));
            match nearest(name, names.iter().copied()) {
                Some(near) => failure.next(format!("Did you mean `{near}`?")),
                None => failure.next(format!("Its inputs are {}.", names.join(", "))),
            }
        })
    }
}
