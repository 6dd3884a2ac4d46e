//! One file on a web server.

use std::time::Duration;

use reqwest::{
    Client, Response, StatusCode, Url,
    header::{
        ACCEPT_ENCODING, CONTENT_RANGE, CONTENT_TYPE, ETAG, HeaderName, IF_MODIFIED_SINCE, IF_NONE_MATCH, IF_RANGE,
        LAST_MODIFIED, RANGE,
    },
    redirect::Policy,
};

use super::file::{Body, Found, Listing, RemoteFile};
use crate::{Config, error::Failure, relative::RelativePath, shelf::Known};

pub(crate) struct Http {
    client: Client,
    url: Url,
    path: RelativePath,
    idle: Duration,
}

impl Http {
    pub(crate) fn new(url: Url, config: &Config) -> Result<Self, Failure> {
        let path = name_of(&url)?;
        let schemes = config.schemes.clone();
        let redirects = Policy::custom(move |attempt| {
            if !schemes.iter().any(|scheme| scheme == attempt.url().scheme()) {
                let scheme = attempt.url().scheme().to_owned();
                return attempt
                    .error(format!("it redirects to {scheme}://, which the setting `schemes` does not allow"));
            }
            match base::client::bad_redirect(&attempt) {
                Some(why) => attempt.error(why),
                None => attempt.follow(),
            }
        });
        let client = base::client::builder().redirect(redirects).build().map_err(|error| Failure::broken(&error))?;
        Ok(Self { client, url, path, idle: Duration::from_millis(config.idle_timeout_ms) })
    }

    pub(crate) async fn look(&self, known: Option<&Known>) -> Result<Found, Failure> {
        let mut conditions = Vec::new();
        if let Some(etag) = known.and_then(|known| known.etag.clone()) {
            conditions.push((IF_NONE_MATCH, etag));
        } else if let Some(modified) = known.and_then(|known| known.modified.clone()) {
            conditions.push((IF_MODIFIED_SINCE, modified));
        }
        let response = self.get(conditions).await?;
        match response.status() {
            StatusCode::NOT_MODIFIED => return Ok(Found::Unchanged),
            StatusCode::OK => {}
            other => return Err(refusal(other)),
        }
        if header(&response, &CONTENT_TYPE).is_some_and(|kind| kind.starts_with("text/html")) {
            let reason = "the address returns a web page, not a model; give the address of one file or of an archive (.tar.gz, .tar, .zip)";
            return Err(Failure::Refused("artifact_refused", reason.to_owned()));
        }
        let file = RemoteFile {
            path: self.path.clone(),
            key: String::new(),
            size: response.content_length(),
            etag: header(&response, &ETAG),
            modified: header(&response, &LAST_MODIFIED),
        };
        let first = Some(Body::new(0, response.bytes_stream(), self.idle));
        Ok(Found::Listing(Listing { single: true, files: vec![file], first }))
    }

    pub(crate) async fn open(&self, file: &RemoteFile, offset: u64) -> Result<Body, Failure> {
        // Resume only if the server surely sends the same bytes (RFC 9110, 13.1.5).
        let strong = file.etag.clone().filter(|etag| !etag.starts_with("W/")).or_else(|| file.modified.clone());
        let conditions = match strong {
            Some(validator) if offset > 0 => vec![(RANGE, format!("bytes={offset}-")), (IF_RANGE, validator)],
            _ => Vec::new(),
        };
        let response = self.get(conditions).await?;
        let begins = match response.status() {
            StatusCode::OK => 0,
            StatusCode::PARTIAL_CONTENT => {
                let range = header(&response, &CONTENT_RANGE).unwrap_or_default();
                if !range.starts_with(&format!("bytes {offset}-")) {
                    return Err(Failure::Broken(format!("requested bytes from {offset}, but it sends {range:?}")));
                }
                offset
            }
            StatusCode::RANGE_NOT_SATISFIABLE => return Err(Failure::Changed),
            other => return Err(refusal(other)),
        };
        if header(&response, &ETAG) != file.etag || header(&response, &LAST_MODIFIED) != file.modified {
            return Err(Failure::Changed);
        }
        Ok(Body::new(begins, response.bytes_stream(), self.idle))
    }

    async fn get(&self, headers: Vec<(HeaderName, String)>) -> Result<Response, Failure> {
        let mut request = self.client.get(self.url.clone()).header(ACCEPT_ENCODING, "identity");
        for (name, value) in headers {
            request = request.header(name, value);
        }
        match tokio::time::timeout(self.idle, request.send()).await {
            Ok(Ok(response)) => Ok(response),
            // The address may contain secrets; the caller adds it without them.
            Ok(Err(error)) if error.is_redirect() => {
                Err(Failure::Refused("artifact_refused", base::error::chain(&error.without_url())))
            }
            Ok(Err(error)) => Err(Failure::broken(&error.without_url())),
            Err(_) => Err(Failure::Broken(format!("no answer for {} s", self.idle.as_secs_f32()))),
        }
    }
}

fn header(response: &Response, name: &HeaderName) -> Option<String> {
    Some(response.headers().get(name)?.to_str().ok()?.to_owned())
}

fn refusal(status: StatusCode) -> Failure {
    match status {
        StatusCode::NOT_FOUND | StatusCode::GONE => Failure::Missing,
        StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => Failure::Refused(
            "artifact_denied",
            format!("the server answers {status}; put credentials into the address, or sign it"),
        ),
        StatusCode::REQUEST_TIMEOUT | StatusCode::TOO_EARLY | StatusCode::TOO_MANY_REQUESTS => {
            Failure::Broken(format!("the server answers {status}"))
        }
        status if status.is_server_error() => Failure::Broken(format!("the server answers {status}")),
        status => Failure::Refused("artifact_refused", format!("the server answers {status}; check the address")),
    }
}

/// The file's name: the last part of the URL's path.
fn name_of(url: &Url) -> Result<RelativePath, Failure> {
    let last = url.path_segments().and_then(|mut parts| parts.rfind(|part| !part.is_empty())).unwrap_or("model");
    let name = percent_encoding::percent_decode_str(last).decode_utf8_lossy();
    match RelativePath::parse(&name) {
        Ok(path) if !path.as_str().contains('/') => Ok(path),
        Ok(_) => Err(unsafe_name(&name, "it has a slash")),
        Err(reason) => Err(unsafe_name(&name, &reason)),
    }
}

fn unsafe_name(name: &str, reason: &str) -> Failure {
    Failure::Refused("artifact_unsafe", format!("its file name {name:?} cannot be used: {reason}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_file_is_named_by_the_address() {
        let name = |url: &str| name_of(&Url::parse(url).expect(url)).map(|path| path.as_str().to_owned());
        assert_eq!(name("http://h/a/my%20model.onnx?x=/y").expect("a name"), "my model.onnx");
        assert_eq!(name("http://h/a/b/").expect("a name"), "b");
        assert_eq!(name("http://h").expect("a name"), "model");
        assert!(name("http://h/a%2Fb").is_err());
        assert!(name("http://h/..%2f..%2fetc").is_err());
    }
}
