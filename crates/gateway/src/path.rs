//! What a request's path asks for.
//!
//! **Invariant:** nothing is copied; the pieces are slices of the path as it came.

/// What a path names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Target<'a> {
    /// Something of a model.
    Model(ModelPath<'a>),
    /// Something that the gateway answers by itself.
    Own(Own),
    /// Nothing.
    Unknown,
}

/// Something of a model.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ModelPath<'a> {
    /// The name that it was asked by.
    pub(crate) name: &'a str,
    /// The version, where one is named.
    pub(crate) version: Option<&'a str>,
    /// What is asked of it.
    pub(crate) action: Action,
}

/// What is asked of a model.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Action {
    /// Its description or its readiness: GET.
    Look,
    /// A prediction: POST. The word goes into the record.
    Predict(&'static str),
    /// Anything else that its server may know.
    Other,
}

/// What the gateway answers by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Own {
    /// The process lives.
    Live,
    /// It holds a route table.
    Ready,
    /// The server's own description.
    Server,
    /// The list of models.
    Models,
    /// Its metrics.
    Metrics,
}

/// Reads a path.
pub(crate) fn read(path: &str) -> Target<'_> {
    if let Some(rest) = path.strip_prefix("/v2/models/") {
        return v2(rest);
    }
    if let Some(rest) = path.strip_prefix("/v1/models/") {
        return v1(rest);
    }
    match path {
        "/health" | "/health/live" | "/v2/health/live" => Target::Own(Own::Live),
        "/ready" | "/health/ready" | "/v2/health/ready" => Target::Own(Own::Ready),
        "/v2" | "/v2/" => Target::Own(Own::Server),
        "/v1/models" | "/v1/models/" => Target::Own(Own::Models),
        "/metrics" => Target::Own(Own::Metrics),
        _ => Target::Unknown,
    }
}

fn v2(rest: &str) -> Target<'_> {
    let (name, mut below) = rest.split_once('/').unwrap_or((rest, ""));
    let mut version = None;
    if let Some(after) = below.strip_prefix("versions/") {
        let (named, further) = after.split_once('/').unwrap_or((after, ""));
        version = Some(named);
        below = further;
    }
    if name.is_empty() || version == Some("") {
        return Target::Unknown;
    }
    let action = match below {
        "" | "ready" => Action::Look,
        "infer" => Action::Predict("infer"),
        "infer_stream" => Action::Predict("infer_stream"),
        "generate" => Action::Predict("generate"),
        "generate_stream" => Action::Predict("generate_stream"),
        _ => Action::Other,
    };
    Target::Model(ModelPath { name, version, action })
}

fn v1(rest: &str) -> Target<'_> {
    let (model, verb) = rest.split_once(':').unwrap_or((rest, ""));
    let (name, below) = model.split_once('/').unwrap_or((model, ""));
    let version = below.strip_prefix("versions/");
    let known_below = below.is_empty() || version.is_some_and(|version| !version.is_empty() && !version.contains('/'));
    if name.is_empty() || !known_below {
        return Target::Unknown;
    }
    let action = match verb {
        "" if rest.len() == model.len() => Action::Look,
        "predict" => Action::Predict("predict"),
        "explain" => Action::Predict("explain"),
        _ => return Target::Unknown,
    };
    Target::Model(ModelPath { name, version, action })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn model(path: &str) -> (&str, Option<&str>, Action) {
        match read(path) {
            Target::Model(model) => (model.name, model.version, model.action),
            other @ (Target::Own(_) | Target::Unknown) => panic!("{path} is {other:?}"),
        }
    }

    #[test]
    fn both_protocols_name_a_model_and_its_version() {
        assert_eq!(model("/v2/models/md-26/infer"), ("md-26", None, Action::Predict("infer")));
        assert_eq!(model("/v2/models/iris/versions/v1/infer"), ("iris", Some("v1"), Action::Predict("infer")));
        assert_eq!(model("/v2/models/iris"), ("iris", None, Action::Look));
        assert_eq!(model("/v2/models/iris/versions/2/ready"), ("iris", Some("2"), Action::Look));
        assert_eq!(model("/v2/models/iris/health/live"), ("iris", None, Action::Other));
        assert_eq!(model("/v1/models/iris:predict"), ("iris", None, Action::Predict("predict")));
        assert_eq!(model("/v1/models/iris/versions/3:explain"), ("iris", Some("3"), Action::Predict("explain")));
        assert_eq!(model("/v1/models/iris"), ("iris", None, Action::Look));
    }

    #[test]
    fn the_gateways_own_paths_are_its_own() {
        for (path, own) in [
            ("/health", Own::Live),
            ("/v2/health/live", Own::Live),
            ("/ready", Own::Ready),
            ("/v2/health/ready", Own::Ready),
            ("/v2", Own::Server),
            ("/v1/models", Own::Models),
            ("/metrics", Own::Metrics),
        ] {
            assert_eq!(read(path), Target::Own(own), "{path}");
        }
    }

    #[test]
    fn everything_else_is_unknown() {
        for path in [
            "",
            "/",
            "/v2/models/",
            "/v2/models//infer",
            "/v2/models/a/versions/",
            "/v1/models/a:fly",
            "/v1/models/a/b",
            "/v3",
        ] {
            assert_eq!(read(path), Target::Unknown, "{path}");
        }
    }
}
