//! `predict`: sends data to a model and prints the answer.

mod answer;
mod metadata;
mod request;

use std::io::Read as _;

use api::{DeploymentId, decode::nearest};
use base::visible;
use metadata::{Metadata, TensorMetadata};
use request::Given;
use reqwest::{RequestBuilder, StatusCode, Url, header::CONTENT_TYPE};
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

/// Maximum size of the data, in bytes.
const DATA_BYTES: u64 = 256 << 20;

/// Sends data to a model and prints its answer.
///
/// # Errors
/// Invalid data, an error of the gateway, no connection.
pub async fn predict(config: &Config, args: &args::Predict) -> Result<(), Failure> {
    let mut model = Model::new(config, &args.deployment, args.model_version.as_deref())?;
    model.tell_apart(&args.deployment).await?;
    let Some(given) = &args.data else {
        return print(request::usage(&model.metadata().await?, &args.deployment));
    };
    let given = request::read(read(given)?).map_err(|words| {
        let next = format!("See what the model takes: modelway predict {}", args.deployment);
        Failure::usage(format!("--data {words}")).next(next)
    })?;
    let answer = match given {
        Given::Inference(body) => model.ask("v2", "/infer", body).await?,
        Given::Instances(body) => model.ask("v1", ":predict", body).await?,
        Given::Fields(body) => model.generate(body).await?,
        Given::Rows(rows) => {
            let body = request::build(&model.metadata().await?, rows)?;
            model.ask("v2", "/infer", body.to_string()).await?
        }
    };
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

/// A model at the gateway.
struct Model {
    http: reqwest::Client,
    base: Url,
    name: String,
    version: String,
}

impl Model {
    fn new(config: &Config, who: &str, version: Option<&str>) -> Result<Self, Failure> {
        let base = parse_url("client.gateway_url", &config.gateway_url)?;
        let name = who.parse::<DeploymentId>().map_or_else(|_| who.to_owned(), |id| id.to_string());
        let version = version.map(|version| format!("/versions/{version}")).unwrap_or_default();
        let http = base::client::builder_for(&config.gateway_url).timeout(config.timeout()).build();
        let http = http.map_err(|error| Failure::of(&error))?;
        Ok(Self { http, base, name, version })
    }

    /// Digits are the number of a deployment. In older versions they could also be the name of another one.
    async fn tell_apart(&mut self, who: &str) -> Result<(), Failure> {
        if !who.bytes().all(|byte| byte.is_ascii_digit()) {
            return Ok(());
        }
        let named = self.deployment_of(who).await?;
        match (named, self.deployment_of(&self.name).await?) {
            (Some(named), Some(numbered)) if named != numbered => {
                Err(Failure::usage(format!("`{who}` is the number of one deployment and the name of another"))
                    .next(format!("Write {} or the other's md-… number; see: modelway list", self.name)))
            }
            (Some(_), None) => {
                who.clone_into(&mut self.name);
                Ok(())
            }
            (_, _) => Ok(()),
        }
    }

    /// The `md-…` of the deployment with a name, if any. Only an answer of a replica contains it.
    async fn deployment_of(&self, name: &str) -> Result<Option<Option<String>>, Failure> {
        let mut url = self.base.clone();
        url.set_path(&format!("{}/v2/models/{name}", url.path().trim_end_matches('/')));
        let answer = self.http.get(url).send().await.map_err(|error| self.unreachable(&error))?;
        let label = answer.headers().get("x-modelway-deployment").and_then(|label| label.to_str().ok());
        Ok((answer.status() != StatusCode::NOT_FOUND).then(|| label.map(str::to_owned)))
    }

    /// The path of the action `verb` of a protocol for this model.
    fn url(&self, protocol: &str, verb: &str) -> Url {
        let mut url = self.base.clone();
        let (name, version) = (&self.name, &self.version);
        url.set_path(&format!("{}/{protocol}/models/{name}{version}{verb}", url.path().trim_end_matches('/')));
        url
    }

    async fn metadata(&self) -> Result<Metadata, Failure> {
        let body = self.answer(self.http.get(self.url("v2", ""))).await?;
        serde_json::from_slice(&body)
            .map_err(|error| Failure::failed(format!("cannot parse the metadata of {}: {error}", self.name)))
    }

    /// Sends a body unchanged.
    async fn ask(&self, protocol: &str, verb: &str, body: String) -> Result<Value, Failure> {
        serde_json::from_slice(&self.post(protocol, verb, body).await?).map_err(|error| self.strange(&error))
    }

    /// The single answer of a model, or the list of answers of a streaming model.
    async fn generate(&self, body: String) -> Result<Value, Failure> {
        let events = self.post("v2", "/generate_stream", body).await?;
        let events = String::from_utf8_lossy(&events);
        let mut answers = Vec::new();
        for event in events.lines().filter_map(|line| line.strip_prefix("data:")) {
            let answer: Value = serde_json::from_str(event).map_err(|error| self.strange(&error))?;
            if let Some(error) = answer["error"].as_str() {
                return Err(Failure::failed(format!(
                    "the connection to {} broke after {} answers: {}",
                    self.name,
                    answers.len(),
                    visible::part(error)
                )));
            }
            answers.push(answer);
        }
        let one = if answers.len() == 1 { answers.pop() } else { None };
        Ok(one.unwrap_or(Value::Array(answers)))
    }

    async fn post(&self, protocol: &str, verb: &str, body: String) -> Result<Vec<u8>, Failure> {
        let request = self.http.post(self.url(protocol, verb)).header(CONTENT_TYPE, "application/json");
        self.answer(request.body(body)).await
    }

    async fn answer(&self, request: RequestBuilder) -> Result<Vec<u8>, Failure> {
        let response = request.send().await.map_err(|error| self.unreachable(&error))?;
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
        Err(self.refused(status, &visible::part(&reason)))
    }

    fn strange(&self, error: &serde_json::Error) -> Failure {
        Failure::failed(format!("cannot parse the answer of {}: {error}", self.name))
    }

    fn refused(&self, status: StatusCode, reason: &str) -> Failure {
        let name = &self.name;
        match status {
            StatusCode::NOT_FOUND => Failure::new(Exit::NotFound, reason.to_owned()).next("List them: modelway list"),
            StatusCode::SERVICE_UNAVAILABLE => Failure::failed(format!("{name} does not serve now: {reason}"))
                .next(format!("Why? modelway describe {name}")),
            StatusCode::GATEWAY_TIMEOUT => Failure::new(Exit::TimedOut, reason.to_owned()),
            _ => Failure::failed(format!("{name} refuses ({status}): {reason}"))
                .next(format!("See its inputs: modelway predict {name}")),
        }
    }

    fn unreachable(&self, error: &reqwest::Error) -> Failure {
        let origin = self.base.origin().ascii_serialization();
        if error.is_timeout() && !error.is_connect() {
            let next = "Try again, or set client.timeout_ms higher.";
            return Failure::new(Exit::TimedOut, format!("the gateway at {origin} did not answer in time")).next(next);
        }
        Failure::new(Exit::Unreachable, format!("no answer from {origin}: {}", root_cause(error)))
            .next("Start one with `modelway up`, or set its URL with --gateway-url.")
    }
}

impl Metadata {
    fn input(&self, name: &str) -> Result<&TensorMetadata, Failure> {
        self.inputs.iter().find(|input| input.name == name).ok_or_else(|| {
            let names: Vec<_> = self.inputs.iter().map(|input| visible::line(&input.name)).collect();
            let failure = Failure::usage(format!("{} has no input `{name}`", self.name));
            match nearest(name, names.iter().map(AsRef::as_ref)) {
                Some(near) => failure.next(format!("Did you mean `{near}`?")),
                None => failure.next(format!("Its inputs are {}.", names.join(", "))),
            }
        })
    }
}
