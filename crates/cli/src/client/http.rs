//! HTTP requests, with errors that say what to do.

use std::time::Duration;

use api::{Deployment, DeploymentId, Problem, decode::nearest};
use base::{error::chain, visible};
use reqwest::{Method, RequestBuilder, Response, StatusCode, Url};
use serde::{Deserialize, de::DeserializeOwned};
use serde_json::Value;

use super::Config;
use crate::exit::{Exit, Failure};

/// The path of the deployments.
pub(super) const DEPLOYMENTS: &str = "/v1/modelDeployment";
/// The path of the registered models.
pub(super) const MODELS: &str = "/v1/registeredModels";
/// How many names are compared for a suggestion, and the page size of lists.
const PAGE: u32 = 500;

/// A client of the control plane.
#[derive(Clone, Debug)]
pub struct Control {
    http: reqwest::Client,
    base: Url,
    timeout: Duration,
}

/// A deployment in both forms: the response, and its parsed form.
#[derive(Clone, Debug)]
pub(super) struct Found {
    /// The response, for `-o json`.
    pub raw: Value,
    /// The parsed form.
    pub deployment: Deployment,
    /// The ETag for conditional changes.
    pub etag: Option<String>,
}

impl Control {
    /// A client for the control plane in the settings.
    ///
    /// # Errors
    /// An invalid URL.
    pub fn new(config: &Config) -> Result<Self, Failure> {
        let base = parse_url("client.control_url", &config.control_url)?;
        let http = base::client::builder_for(&config.control_url).build().map_err(|error| Failure::of(&error))?;
        Ok(Self { http, base, timeout: config.timeout() })
    }

    pub(super) fn request(&self, method: Method, path: &str) -> RequestBuilder {
        let mut url = self.base.clone();
        let path = format!("{}{path}", url.path().trim_end_matches('/'));
        url.set_path(&path);
        self.http.request(method, url)
    }

    /// Sends a request with a timeout for the whole response.
    pub(super) async fn send(&self, request: RequestBuilder) -> Result<Response, Failure> {
        self.open(request.timeout(self.timeout)).await
    }

    /// Sends a request whose response may never end.
    pub(super) async fn open(&self, request: RequestBuilder) -> Result<Response, Failure> {
        let response = request.send().await.map_err(|error| self.unreachable(&error))?;
        let status = response.status();
        if status.is_success() {
            return Ok(response);
        }
        let body = response.text().await.unwrap_or_default();
        Err(match serde_json::from_str::<Problem>(&body) {
            Ok(problem) => Failure::refused(&problem),
            Err(_) => self.strange(status, &body),
        })
    }

    pub(super) async fn json<T: DeserializeOwned>(&self, request: RequestBuilder) -> Result<T, Failure> {
        read(self.send(request).await?).await
    }

    pub(super) async fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, Failure> {
        self.json(self.request(Method::GET, path)).await
    }

    /// The items of one page of a list.
    pub(super) async fn items<T: DeserializeOwned>(&self, request: RequestBuilder) -> Result<Vec<T>, Failure> {
        #[derive(Deserialize)]
        struct Page<T> {
            items: Vec<T>,
        }
        Ok(self.json::<Page<T>>(request).await?.items)
    }

    /// All pages of a list, as one list.
    pub(super) async fn all(&self, path: &str, query: &[(&str, String)]) -> Result<Vec<Value>, Failure> {
        let mut items = Vec::new();
        let mut after: Option<String> = None;
        loop {
            let mut request = self.request(Method::GET, path).query(query).query(&[("limit", PAGE)]);
            if let Some(after) = &after {
                request = request.query(&[("after", after)]);
            }
            let mut page: Value = self.json(request).await?;
            if let Some(Value::Array(more)) = page.get_mut("items").map(Value::take) {
                items.extend(more);
            }
            after = match page.get("next") {
                Some(Value::String(next)) => Some(next.clone()),
                Some(Value::Number(next)) => Some(next.to_string()),
                Some(_) | None => return Ok(items),
            };
        }
    }

    /// Changes the fields of a deployment that are in `patch`, unless it has changed in the meantime.
    pub(super) async fn patch(&self, present: &Found, patch: &Value) -> Result<Found, Failure> {
        let mut request = self.request(Method::PATCH, &format!("{DEPLOYMENTS}/{}", present.deployment.id.0));
        request = request.header("content-type", "application/merge-patch+json").body(patch.to_string());
        if let Some(etag) = &present.etag {
            request = request.header("if-match", etag);
        }
        found(self.send(request).await?).await
    }

    /// Whether the registry has this version.
    pub(super) async fn is_registered(&self, model: &str, version: &str) -> Result<bool, Failure> {
        match self.get::<Value>(&format!("{MODELS}/{model}/versions/{version}")).await {
            Ok(_) => Ok(true),
            Err(failure) if failure.exit == Exit::NotFound => Ok(false),
            Err(failure) => Err(failure),
        }
    }

    /// Creates a new revision of a deployment with the current files of the model.
    pub(super) async fn redeploy(&self, present: &Found) -> Result<Found, Failure> {
        let mut request = self.request(Method::POST, &format!("{DEPLOYMENTS}/{}/redeploy", present.deployment.id.0));
        if let Some(etag) = &present.etag {
            request = request.header("if-match", etag);
        }
        found(self.send(request).await?).await
    }

    /// Finds a deployment by its number, by `md-` and its number, or by its name.
    pub(super) async fn deployment(&self, who: &str) -> Result<Found, Failure> {
        let named = match who.parse::<DeploymentId>() {
            Ok(id) => match self.named_like(who, id).await? {
                None => return self.by_id(id).await,
                named => named,
            },
            Err(_) => self.by_name(who).await?,
        };
        match named {
            Some(found) => Ok(found),
            None => Err(self.unknown_name(who).await),
        }
    }

    /// A deployment with the name `id`, a number. New names cannot be numbers, but older versions allowed them.
    ///
    /// # Errors
    /// Another deployment has this number, so the reference is ambiguous.
    pub(super) async fn named_like(&self, who: &str, id: DeploymentId) -> Result<Option<Found>, Failure> {
        if !who.bytes().all(|byte| byte.is_ascii_digit()) {
            return Ok(None);
        }
        let Some(named) = self.by_name(who).await? else { return Ok(None) };
        let other = named.deployment.id;
        match self.by_id(id).await {
            Err(failure) if failure.exit == Exit::NotFound => Ok(Some(named)),
            Err(failure) => Err(failure),
            Ok(_) if other == id => Ok(Some(named)),
            Ok(_) => Err(Failure::usage(format!("`{who}` is the number of {id} and the name of {other}"))
                .next(format!("Write {id} or {other}."))),
        }
    }

    pub(super) async fn by_id(&self, id: DeploymentId) -> Result<Found, Failure> {
        let response = self.send(self.request(Method::GET, &format!("{DEPLOYMENTS}/{}", id.0))).await?;
        found(response).await
    }

    pub(super) async fn by_name(&self, name: &str) -> Result<Option<Found>, Failure> {
        let items = self.all(DEPLOYMENTS, &[("name", name.to_owned())]).await?;
        // A deployment that is being deleted releases its name, so there may be more than one.
        let live = items.into_iter().filter_map(|item| serde_json::from_value::<Deployment>(item).ok());
        match live.filter(|deployment| deployment.status.state != api::State::Deleting).map(|d| d.id).next() {
            Some(id) => self.by_id(id).await.map(Some),
            None => Ok(None),
        }
    }

    async fn unknown_name(&self, who: &str) -> Failure {
        let items = match self.all(DEPLOYMENTS, &[]).await {
            Ok(items) => items,
            Err(failure) => return failure,
        };
        let (gone, live): (Vec<_>, Vec<_>) = items.iter().partition(|item| item["status"] == "deleting");
        if let Some(gone) = gone.iter().find(|item| item["name"] == who) {
            let message = format!("`{who}` is being deleted");
            let next = format!("It can be found by its number: modelway describe md-{}", gone["id"]);
            return Failure::new(Exit::NotFound, message).next(next);
        }
        let names: Vec<String> = live.iter().filter_map(|item| item["name"].as_str().map(str::to_owned)).collect();
        let failure = Failure::new(Exit::NotFound, format!("there is no deployment `{who}`"));
        match nearest(who, names.iter().map(String::as_str)) {
            Some(near) => failure.next(format!("Did you mean `{}`?", visible::line(near))),
            None => failure.next("List them: modelway list"),
        }
    }

    fn unreachable(&self, error: &reqwest::Error) -> Failure {
        let place = self.base.as_str().trim_end_matches('/');
        if error.is_timeout() && !error.is_connect() {
            return Failure::new(Exit::TimedOut, format!("the control plane at {place} did not answer in time"))
                .next("It may be busy: try again, or set client.timeout_ms higher.");
        }
        Failure::new(Exit::Unreachable, format!("no answer from {place}: {}", root_cause(error)))
            .next("Start one with `modelway up`, or set its URL with --control-url.")
    }

    fn strange(&self, status: StatusCode, body: &str) -> Failure {
        let beginning: String = body.chars().take(200).collect();
        Failure::failed(format!("{} answered {status}: {}", self.base, visible::part(&beginning)))
            .next("Is that a Modelway control plane? Its address is --control-url.")
    }
}

pub(super) fn parse_url(setting: &str, text: &str) -> Result<Url, Failure> {
    match Url::parse(text) {
        Ok(url) if matches!(url.scheme(), "http" | "https") && url.has_host() => Ok(url),
        Ok(_) | Err(_) => Err(Failure::usage(format!(
            "{setting} is `{text}`, which is not a URL; write it as in http://127.0.0.1:8081"
        ))),
    }
}

/// The innermost cause: the layers above only say that the request failed.
pub(super) fn root_cause(error: &reqwest::Error) -> String {
    let mut cause: &dyn std::error::Error = error;
    while let Some(inner) = cause.source() {
        cause = inner;
    }
    cause.to_string()
}

pub(super) async fn read<T: DeserializeOwned>(response: Response) -> Result<T, Failure> {
    let url = response.url().clone();
    let body = response.bytes().await.map_err(|error| Failure::of(&error))?;
    serde_json::from_slice(&body).map_err(|error| {
        Failure::failed(format!("cannot parse the answer of {url}: {}", chain(&error)))
            .next("Check that both have the same version: modelway version")
    })
}

pub(super) async fn found(response: Response) -> Result<Found, Failure> {
    let etag = response.headers().get("etag").and_then(|tag| tag.to_str().ok()).map(str::to_owned);
    let raw: Value = read(response).await?;
    let deployment = serde_json::from_value(raw.clone()).map_err(|error| Failure::of(&error))?;
    Ok(Found { raw, deployment, etag })
}
