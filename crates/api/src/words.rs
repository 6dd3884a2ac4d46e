//! What a caller is told of a request that is refused, by a model server and by a gateway in the same words.

/// The most characters of a path or a name that are repeated.
const SHOWN: usize = 128;

/// Extensions of Triton that its clients may look for, and that are not there.
const NO_EXTENSIONS: [(&str, &str); 4] = [
    ("trace/setting", "traces are not set over the protocol"),
    ("logging", "the log is not set over the protocol"),
    ("systemsharedmemory", "tensors come in the body, not by shared memory"),
    ("cudasharedmemory", "tensors come in the body, not by shared memory"),
];

/// Methods of Triton's gRPC service that are not served, and what to do instead.
const NO_METHODS: [(&str, &str); 5] = [
    ("SystemSharedMemory", "shared memory is not served here: send the tensors in the message"),
    ("CudaSharedMemory", "shared memory is not served here: send the tensors in the message"),
    ("TraceSetting", "traces are not set over the protocol: see the server's configuration"),
    ("LogSettings", "logging is not set over the protocol: see the server's configuration"),
    ("", "there is no such method; reflection lists those that there are"),
];

/// A compressed gRPC message in a call without `grpc-encoding`; INTERNAL, as gRPC has it.
pub const COMPRESSION_UNNAMED: &str = "the message says that it is compressed, and its headers do not say how";

/// 404: there is nothing at a path.
#[must_use]
pub fn nothing_at(path: &str) -> String {
    if let Some((_, why)) = NO_EXTENSIONS.iter().find(|(part, _)| path.starts_with("/v2/") && path.contains(part)) {
        return format!("this server does not have that extension: {why}");
    }
    let shown = shown(path);
    format!(
        "there is nothing at {shown}; predictions are at /v2/models/{{model}}/infer and /v1/models/{{model}}:predict"
    )
}

/// 405: a path takes other methods. `allowed` is as in the header `Allow`.
#[must_use]
pub fn wrong_method(path: &str, allowed: &str, used: &str) -> String {
    format!("{} takes {allowed}, not {used}", shown(path))
}

/// 404: a model has no such version.
#[must_use]
pub fn no_version(model: &str, version: &str, there: &[&str]) -> String {
    format!("model `{model}` has no version `{}`; it has {}", shown(version), there.join(", "))
}

/// 404: nobody has a model's name. Programs written against Triton and KServe look for the first words.
#[must_use]
pub fn unknown_model(name: &str, hint: &str) -> String {
    format!("Request for unknown model `{}`: {hint}", shown(name))
}

/// UNIMPLEMENTED: a method of the inference service.
#[must_use]
pub fn no_method(method: &str) -> String {
    let why = NO_METHODS.iter().find(|(beginning, _)| method.starts_with(beginning)).map_or("", |(_, why)| why);
    format!("{}: {why}", shown(method))
}

/// UNIMPLEMENTED: a gRPC service. `served` is one that is.
#[must_use]
pub fn no_service(name: &str, served: &str) -> String {
    format!("the service {} is not served here; {served} is", shown(name))
}

fn shown(text: &str) -> &str {
    text.char_indices().nth(SHOWN).map_or(text, |(end, _)| &text[..end])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_and_names_that_are_long_are_cut_between_characters() {
        assert_eq!(wrong_method("/ä", "GET", "PUT"), "/ä takes GET, not PUT");
        let told = nothing_at(&"ä".repeat(1_000));
        assert!(told.contains(&format!("at {};", "ä".repeat(SHOWN))), "{told}");
    }
}
