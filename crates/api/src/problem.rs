//! The error responses of the control plane: RFC 9457 problem details.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// One fault of a payload.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Fault {
    /// Where the fault is: a JSON pointer (RFC 6901), empty for the whole document; `?name` for a query parameter.
    pub pointer: String,
    /// A stable code for programs, such as `unknown_field`.
    pub code: String,
    /// A sentence for people: what is wrong and what to do.
    pub detail: String,
}

/// The body of every error response of the control plane (`application/problem+json`, RFC 9457).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Problem {
    /// The HTTP status.
    pub status: u16,
    /// The reason phrase of the status.
    pub title: String,
    /// A stable code for programs, such as `not_found`.
    pub code: String,
    /// A sentence for people: what is wrong and what to do next.
    pub detail: String,
    /// All faults of the payload.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub faults: Vec<Fault>,
}

/// The media type of a [`Problem`].
pub const PROBLEM_TYPE: &str = "application/problem+json";

impl Problem {
    /// The answer to a client whose request is not valid HTTP: the media type and the body.
    #[must_use]
    pub fn unreadable(status: u16, title: &str, detail: &str) -> (&'static str, String) {
        let problem = serde_json::json!({ "status": status, "title": title, "code": "unreadable", "detail": detail });
        (PROBLEM_TYPE, problem.to_string())
    }
}
