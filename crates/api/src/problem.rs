//! What the control plane answers when it refuses: RFC 9457 problem details.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// One thing wrong with a payload.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Fault {
    /// Where: a JSON pointer (RFC 6901), empty for the whole document; `?name` for a parameter of the query.
    pub pointer: String,
    /// A stable word for programs, such as `unknown_field`.
    pub code: String,
    /// A sentence for a person: what is wrong and what to do.
    pub detail: String,
}

/// The body of every refusal of the control plane (`application/problem+json`, RFC 9457).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Problem {
    /// The HTTP status, repeated.
    pub status: u16,
    /// The status in words.
    pub title: String,
    /// A stable word for programs, such as `not_found`.
    pub code: String,
    /// A sentence for a person: what is wrong and what to do next.
    pub detail: String,
    /// For a payload: everything wrong with it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub faults: Vec<Fault>,
}

/// The media type of a [`Problem`].
pub const PROBLEM_TYPE: &str = "application/problem+json";

impl Problem {
    /// What a client is told whose request is no HTTP: the media type, and the body.
    #[must_use]
    pub fn unreadable(status: u16, title: &str, detail: &str) -> (&'static str, String) {
        let problem = serde_json::json!({ "status": status, "title": title, "code": "unreadable", "detail": detail });
        (PROBLEM_TYPE, problem.to_string())
    }
}
