//! An MLflow tracking server: its address, the credentials, and a request.

use std::time::Duration;

use base::error::chain;
use futures::StreamExt as _;
use reqwest::{Client, RequestBuilder, Response, StatusCode};
use serde::de::DeserializeOwned;
use serde_json::Value;
use url::Url;

use crate::{Config, error::Failure};

/// Maximum size of one response of the API, in bytes.
const MAX_ANSWER: usize = 16 << 20;

/// A tracking server.
#[derive(Clone, Debug)]
pub(crate) struct Server {
    client: Client,
    url: Url,
    /// The name of its setting, for errors.
    named_by: &'static str,
    credentials: Credentials,
    idle: Duration,
}

/// The credentials.
#[derive(Clone, Default)]
struct Credentials {
    user: Option<(String, Option<String>)>,
    token: Option<String>,
}

impl std::fmt::Debug for Credentials {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Credentials")
    }
}

/// The error response of a server.
#[derive(Debug, serde::Deserialize)]
pub(crate) struct Complaint {
    #[serde(default)]
    pub(crate) error_code: String,
    #[serde(default)]
    pub(crate) message: String,
}

impl Complaint {
    /// Whether it means that the item does not exist.
    pub(crate) fn is_absence(&self) -> bool {
        self.error_code == "RESOURCE_DOES_NOT_EXIST" || self.error_code == "NOT_FOUND"
    }
}

impl Server {
    /// The server for runs, logged models and files.
    pub(crate) fn tracking(config: &Config) -> Result<Self, Failure> {
        Self::at(&config.tracking(), "MLFLOW_TRACKING_URI or the setting serve.cache.mlflow_tracking_uri", config)
    }

    /// The server for registered models: the same unless another one is configured.
    pub(crate) fn registry(config: &Config) -> Result<Self, Failure> {
        match config.registry() {
            Some(registry) => {
                Self::at(&registry, "MLFLOW_REGISTRY_URI or the setting serve.cache.mlflow_registry_uri", config)
            }
            None => Self::tracking(config),
        }
    }

    fn at(uri: &str, named_by: &'static str, config: &Config) -> Result<Self, Failure> {
        let refused = |reason: String| Failure::Refused("mlflow_not_configured", reason);
        if uri.is_empty() {
            return Err(refused(format!(
                "it is resolved by an MLflow server, and none is named: set {named_by}, as in \
                 MLFLOW_TRACKING_URI=http://127.0.0.1:5000"
            )));
        }
        let url = match Url::parse(uri) {
            Ok(url) if matches!(url.scheme(), "http" | "https") && url.has_host() => url,
            _ => {
                return Err(refused(format!(
                    "it is resolved by an MLflow server, and `{uri}` is none: start one over it (`mlflow server \
                     --backend-store-uri {uri}`) and name it as http://host:port in {named_by}"
                )));
            }
        };
        let client = base::client::builder_for(url.as_str()).build().map_err(|error| Failure::broken(&error))?;
        let variable = base::config::variable;
        let credentials = Credentials {
            user: variable("MLFLOW_TRACKING_USERNAME").map(|user| (user, variable("MLFLOW_TRACKING_PASSWORD"))),
            token: variable("MLFLOW_TRACKING_TOKEN"),
        };
        Ok(Self { client, url, named_by, credentials, idle: Duration::from_millis(config.idle_timeout_ms) })
    }

    /// The server without secrets, for errors.
    pub(crate) fn shown(&self) -> String {
        let mut url = self.url.clone();
        // Both fail only for URLs without a user part.
        let _ = url.set_username("");
        let _ = url.set_password(None);
        url.as_str().trim_end_matches('/').to_owned()
    }

    /// The server at another host, under the same scheme.
    pub(crate) fn at_host(&self, host: Option<&str>) -> Result<Url, Failure> {
        let Some(host) = host else { return Ok(self.url.clone()) };
        Url::parse(&format!("{}://{host}/", self.url.scheme())).map_err(|error| {
            Failure::Refused("artifact_refused", format!("{host} cannot be the host of an MLflow server: {error}"))
        })
    }

    /// The client for another server. The credentials are sent only to the configured server.
    pub(crate) fn moved(mut self, url: &Url) -> Self {
        if url.origin() != self.url.origin() {
            self.credentials = Credentials::default();
        }
        self.url = url.clone();
        self
    }

    /// The URL of `parts` below the server.
    pub(crate) fn below<'p>(&self, parts: impl IntoIterator<Item = &'p str>, query: &[(&str, &str)]) -> Url {
        let mut url = self.url.clone();
        if let Ok(mut path) = url.path_segments_mut() {
            path.pop_if_empty().extend(parts);
        }
        if !query.is_empty() {
            url.query_pairs_mut().extend_pairs(query);
        }
        url
    }

    /// Calls the API: `api/2.0/mlflow/<call>`.
    pub(crate) async fn get<T: DeserializeOwned>(
        &self,
        call: &str,
        query: &[(&str, &str)],
    ) -> Result<Result<T, Complaint>, Failure> {
        let url = self.below(["api", "2.0", "mlflow"].into_iter().chain(call.split('/')), query);
        self.answer(self.client.get(url)).await
    }

    /// The same with a body.
    pub(crate) async fn post<T: DeserializeOwned>(
        &self,
        call: &str,
        body: &Value,
    ) -> Result<Result<T, Complaint>, Failure> {
        let url = self.below(["api", "2.0", "mlflow"].into_iter().chain(call.split('/')), &[]);
        self.answer(self.client.post(url).json(body)).await
    }

    /// Requests the list of files in a folder.
    pub(crate) async fn list<T: DeserializeOwned>(&self, path: &str) -> Result<Result<T, Complaint>, Failure> {
        let url = self.below(["api", "2.0", "mlflow-artifacts", "artifacts"], &[("path", path)]);
        self.answer(self.client.get(url)).await
    }

    /// Begins to read a file.
    pub(crate) async fn open(&self, path: &str, offset: u64) -> Result<Response, Failure> {
        let url = self.below(["api", "2.0", "mlflow-artifacts", "artifacts"].into_iter().chain(path.split('/')), &[]);
        let mut request = self.client.get(url).header(reqwest::header::ACCEPT_ENCODING, "identity");
        if offset > 0 {
            request = request.header(reqwest::header::RANGE, format!("bytes={offset}-"));
        }
        let response = self.send(request).await?;
        match response.status() {
            StatusCode::OK | StatusCode::PARTIAL_CONTENT => Ok(response),
            StatusCode::NOT_FOUND => Err(Failure::Missing),
            StatusCode::RANGE_NOT_SATISFIABLE => Err(Failure::Changed),
            other => Err(self.refusal(other)),
        }
    }

    async fn answer<T: DeserializeOwned>(&self, request: RequestBuilder) -> Result<Result<T, Complaint>, Failure> {
        let response = self.send(request).await?;
        let status = response.status();
        if !matches!(status, StatusCode::OK | StatusCode::NOT_FOUND | StatusCode::BAD_REQUEST) {
            return Err(self.refusal(status));
        }
        let body = self.body(response).await?;
        let foreign = || {
            let reason =
                format!("{} answers {status} but not like an MLflow server; correct {}", self.shown(), self.named_by);
            Failure::Refused("artifact_refused", reason)
        };
        if status == StatusCode::OK {
            return serde_json::from_slice(&body).map(Ok).map_err(|_| foreign());
        }
        match serde_json::from_slice::<Complaint>(&body) {
            Ok(complaint) if !complaint.error_code.is_empty() => Ok(Err(complaint)),
            _ => Err(foreign()),
        }
    }

    async fn send(&self, request: RequestBuilder) -> Result<Response, Failure> {
        let request = match (&self.credentials.user, &self.credentials.token) {
            (Some((user, password)), _) => request.basic_auth(user, password.as_ref()),
            (None, Some(token)) => request.bearer_auth(token),
            (None, None) => request,
        };
        let silent = |why: String| {
            Failure::Broken(format!(
                "the MLflow server {} does not answer: {why} ({} sets its address)",
                self.shown(),
                self.named_by
            ))
        };
        match tokio::time::timeout(self.idle, request.send()).await {
            Ok(Ok(response)) => Ok(response),
            Ok(Err(error)) => Err(silent(chain(&error.without_url()))),
            Err(_) => Err(silent(format!("no data arrived for {} s", self.idle.as_secs_f32()))),
        }
    }

    async fn body(&self, response: Response) -> Result<Vec<u8>, Failure> {
        let mut body = Vec::new();
        let mut stream = response.bytes_stream();
        loop {
            let next = tokio::time::timeout(self.idle, stream.next()).await;
            match next.map_err(|_| Failure::Broken(format!("no data arrived for {} s", self.idle.as_secs_f32())))? {
                None => return Ok(body),
                Some(Err(error)) => return Err(Failure::broken(&error.without_url())),
                Some(Ok(chunk)) if body.len() + chunk.len() <= MAX_ANSWER => body.extend_from_slice(&chunk),
                Some(Ok(_)) => {
                    let reason = format!("{} answers with over {} MiB of text", self.shown(), MAX_ANSWER >> 20);
                    return Err(Failure::Refused("artifact_too_large", reason));
                }
            }
        }
    }

    fn refusal(&self, status: StatusCode) -> Failure {
        let server = self.shown();
        match status {
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => {
                const HOW: &str = "MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD, or MLFLOW_TRACKING_TOKEN";
                let known = self.credentials.user.is_some() || self.credentials.token.is_some();
                let advice = if known { format!("check {HOW}, and the rights") } else { format!("set {HOW}") };
                Failure::Refused("artifact_denied", format!("the MLflow server {server} answers {status}; {advice}"))
            }
            StatusCode::REQUEST_TIMEOUT | StatusCode::TOO_EARLY | StatusCode::TOO_MANY_REQUESTS => {
                Failure::Broken(format!("the MLflow server {server} answers {status}"))
            }
            status if status.is_server_error() => {
                Failure::Broken(format!("the MLflow server {server} answers {status}"))
            }
            status => Failure::Refused(
                "artifact_refused",
                format!("{server} answers {status}, but not like an MLflow server; correct {}", self.named_by),
            ),
        }
    }
}
