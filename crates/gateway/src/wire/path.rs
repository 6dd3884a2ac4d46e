//! What the path of a request refers to. [`api::path`] parses paths, for all servers alike.

use std::borrow::Cow;

use api::path::{ModelPath as Read, Protocol, Target as ReadTarget};

/// What a path refers to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Target<'a> {
    /// A resource of a model.
    Model(ModelPath<'a>),
    /// A page of the gateway.
    Own(Own),
    /// Unknown; the path as shown in errors.
    Unknown(Cow<'a, str>),
    /// It is not UTF-8.
    Unreadable,
}

/// A resource of a model.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ModelPath<'a> {
    /// The name in the path.
    pub(crate) name: Cow<'a, str>,
    /// The version, if one is given.
    pub(crate) version: Option<Cow<'a, str>>,
    /// What is asked of it.
    pub(crate) action: Action,
}

/// The action on a model.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Action {
    /// Its description or its readiness: GET.
    Look,
    /// A prediction: POST. The word is written to the record.
    Predict(&'static str),
    /// Any other action, which its server may know.
    Other,
}

/// A page of the gateway.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Own {
    /// Liveness, in the form of V1.
    Alive,
    /// Liveness, in the form of V2.
    Live,
    /// Readiness: it has a route table.
    Ready,
    /// The description of the server.
    Server,
    /// Its version.
    Version,
    /// The list of models.
    Models,
    /// Its metrics.
    Metrics,
    /// The metrics of all replicas.
    ReplicaMetrics,
    /// The server as a whole, which is asked for its methods: `*`.
    Asterisk,
}

/// Parses a path.
pub(crate) fn read(path: &str) -> Target<'_> {
    match api::path::read(path) {
        Err(_) => Target::Unreadable,
        Ok(ReadTarget::Model(Read { protocol, name, version, action })) => {
            let action = match (protocol, &*action) {
                (Protocol::V1 | Protocol::V2, "") | (Protocol::V2, "ready") => Action::Look,
                (Protocol::V1, "predict") => Action::Predict("predict"),
                (Protocol::V1, "explain") => Action::Predict("explain"),
                (Protocol::V2, "infer") => Action::Predict("infer"),
                (Protocol::V2, "infer_stream") => Action::Predict("infer_stream"),
                (Protocol::V2, "generate") => Action::Predict("generate"),
                (Protocol::V2, "generate_stream") => Action::Predict("generate_stream"),
                (Protocol::V2, "versions") | (Protocol::V1 | Protocol::Repository, _) => {
                    return Target::Unknown(path.into());
                }
                (Protocol::V2, _) => Action::Other,
            };
            Target::Model(ModelPath { name, version, action })
        }
        Ok(ReadTarget::Other(path)) => match path.as_ref() {
            "/" | "/health" | "/health/live" => Target::Own(Own::Alive),
            "/v2/health/live" => Target::Own(Own::Live),
            "/ready" | "/ping" | "/health/ready" | "/v2/health/ready" => Target::Own(Own::Ready),
            "/v2" => Target::Own(Own::Server),
            "/version" => Target::Own(Own::Version),
            "/v1/models" => Target::Own(Own::Models),
            "/metrics" => Target::Own(Own::Metrics),
            "/metrics/replicas" => Target::Own(Own::ReplicaMetrics),
            "*" => Target::Own(Own::Asterisk),
            _ => Target::Unknown(path),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn is(path: &str, name: &str, version: Option<&str>, action: Action) {
        let version = version.map(Cow::Borrowed);
        assert_eq!(read(path), Target::Model(ModelPath { name: name.into(), version, action }), "{path}");
    }

    #[test]
    fn both_protocols_name_a_model_and_its_version() {
        is("/v2/models/md-26/infer", "md-26", None, Action::Predict("infer"));
        is("/v2/models/iris/versions/v1/infer", "iris", Some("v1"), Action::Predict("infer"));
        is("/v2/models/iris", "iris", None, Action::Look);
        is("/v2/models/iris/versions/2/ready", "iris", Some("2"), Action::Look);
        is("/v2/models/iris/health/live", "iris", None, Action::Other);
        is("/v1/models/iris:predict", "iris", None, Action::Predict("predict"));
        is("/v1/models/iris/versions/3:explain", "iris", Some("3"), Action::Predict("explain"));
        is("/v1/models/iris", "iris", None, Action::Look);
    }

    #[test]
    fn a_path_is_decoded_by_one_rule() {
        is("/v1/models/iris%3Apredict", "iris", None, Action::Predict("predict"));
        is("/v2/models/%69ris/versions/v%31/infer", "iris", Some("v1"), Action::Predict("infer"));
        is("/v2/models/a%2Fb/infer/", "a/b", None, Action::Predict("infer"));
        is("/v1/models/a:fly", "a:fly", None, Action::Look);
        assert_eq!(read("/v2/models/%ff/infer"), Target::Unreadable);
    }

    #[test]
    fn the_gateways_own_paths_are_its_own() {
        for (path, own) in [
            ("", Own::Alive),
            ("/", Own::Alive),
            ("/health", Own::Alive),
            ("/v2/health/live", Own::Live),
            ("/ready", Own::Ready),
            ("/ping", Own::Ready),
            ("/version", Own::Version),
            ("/v2/health/ready", Own::Ready),
            ("/v2", Own::Server),
            ("/v1/models", Own::Models),
            ("/metrics", Own::Metrics),
            ("/metrics/replicas", Own::ReplicaMetrics),
        ] {
            assert_eq!(read(path), Target::Own(own), "{path}");
        }
    }

    #[test]
    fn everything_else_is_unknown() {
        for path in [
            "/v2/models/",
            "/v2/models//infer",
            "/v2/models/a/versions/",
            "/v1/models/a/b",
            "/v2/repository/models/a/load",
            "/v2/models//",
            "/v3",
        ] {
            assert!(matches!(read(path), Target::Unknown(_)), "{path}");
        }
    }
}
