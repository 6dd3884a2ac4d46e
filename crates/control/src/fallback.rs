//! Requests with an unknown path, or with a method that the path does not support.

use std::sync::LazyLock;

use axum::extract::MatchedPath;
use http::{Method, StatusCode, Uri};

use crate::error::Error;

/// The documented paths, split into segments.
static PATHS: LazyLock<Vec<String>> = LazyLock::new(|| {
    let document = crate::openapi();
    let mut paths: Vec<String> =
        document["paths"].as_object().into_iter().flat_map(|paths| paths.keys().cloned()).collect();
    paths.extend(["/docs".to_owned(), "/openapi.json".to_owned()]);
    paths
});

/// Maximum number of suggested paths.
const NAMED: usize = 3;
/// Maximum edit distance of a suggested path.
const FARTHEST: usize = 6;

pub(crate) async fn unknown_path(uri: Uri) -> Error {
    let near = near(uri.path());
    let hint = if near.is_empty() {
        "GET /docs shows every path".to_owned()
    } else {
        format!("similar paths are {}", near.join(", "))
    };
    let shown: String = uri.path().chars().take(200).collect();
    Error::not_found(format!("there is nothing at `{shown}`; {hint}"))
}

pub(crate) async fn wrong_method(method: Method, path: Option<MatchedPath>) -> Error {
    let path = path.as_ref().map_or("this path", MatchedPath::as_str);
    let detail = format!("{path} does not support {method}; the header Allow lists the supported methods");
    Error::request(StatusCode::METHOD_NOT_ALLOWED, "method_not_allowed", detail)
}

/// Similar paths, best first. A variable segment matches any text.
fn near(path: &str) -> Vec<String> {
    // A path can have any length. One that is much longer than ours is similar to none.
    if path.len() > 256 {
        return Vec::new();
    }
    let mut scored: Vec<(usize, &String)> = PATHS.iter().map(|known| (distance(path, known), known)).collect();
    scored.sort();
    let bound = (path.len() / 3).clamp(1, FARTHEST);
    scored
        .into_iter()
        .take_while(|(distance, _)| *distance <= bound)
        .take(NAMED)
        .map(|(_, known)| known.clone())
        .collect()
}

fn distance(path: &str, known: &str) -> usize {
    if known.strip_prefix(path.trim_end_matches('/')).is_some_and(|rest| rest.starts_with('/')) {
        return 1;
    }
    let mut given: Vec<&str> = path.trim_matches('/').split('/').collect();
    let wanted: Vec<&str> = known.trim_matches('/').split('/').collect();
    // The most frequent mistake: the version prefix is missing.
    if given.len() + 1 == wanted.len() && given.first() != wanted.first() {
        given.insert(0, "");
    }
    let longer = given.len().max(wanted.len());
    (0..longer)
        .map(|place| match (given.get(place), wanted.get(place)) {
            (Some(given), Some(wanted)) if wanted.starts_with('{') => usize::from(given.is_empty()),
            (Some(given), Some(wanted)) => {
                // The comparison takes time proportional to the product of the lengths.
                let apart = given.chars().count().abs_diff(wanted.chars().count());
                if apart > FARTHEST {
                    return apart;
                }
                strsim::damerau_levenshtein(&given.to_lowercase(), &wanted.to_lowercase())
            }
            (Some(extra), None) => extra.chars().count().max(1),
            (None, Some(missing)) => missing.chars().count(),
            (None, None) => 0,
        })
        .sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unknown_path_names_what_was_probably_meant() {
        for (slip, meant) in [
            ("/v1/modelDeployments", "/v1/modelDeployment"),
            ("/v1/modeldeployment/7", "/v1/modelDeployment/{id}"),
            ("/modelDeployment", "/v1/modelDeployment"),
            ("/v1/registeredModel", "/v1/registeredModels"),
            ("/v1/modelDeployment/7/event", "/v1/modelDeployment/{id}/events"),
            ("/metric", "/metrics"),
            ("/health", "/health/live"),
        ] {
            assert_eq!(near(slip).first().map(String::as_str), Some(meant), "{slip}: {:?}", near(slip));
        }
        assert!(near("/something/else/altogether").is_empty());
    }
}
