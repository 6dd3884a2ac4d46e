//! Texts of refused requests, shared by the model server and the gateway.

/// Maximum number of characters of a path or a name that a text repeats.
const SHOWN: usize = 128;

/// Extensions of Triton that its clients may look for, and that are not supported.
const NO_EXTENSIONS: [(&str, &str); 4] = [
    ("trace/setting", "trace settings cannot be changed over the protocol"),
    ("logging", "log settings cannot be changed over the protocol"),
    ("systemsharedmemory", "shared memory is not supported; send tensors in the body"),
    ("cudasharedmemory", "shared memory is not supported; send tensors in the body"),
];

/// Methods of Triton's gRPC service that are not supported, and what to do instead.
const NO_METHODS: [(&str, &str); 5] = [
    ("SystemSharedMemory", "shared memory is not supported: send the tensors in the message"),
    ("CudaSharedMemory", "shared memory is not supported: send the tensors in the message"),
    ("TraceSetting", "trace settings cannot be changed over the protocol: see the server's configuration"),
    ("LogSettings", "log settings cannot be changed over the protocol: see the server's configuration"),
    ("", "there is no such method; reflection lists the methods"),
];

/// A gRPC call took longer than its caller allowed.
pub const CALL_LATE: &str = "the call took longer than its own grpc-timeout";

/// The methods of an inference server, for `Allow`.
pub const METHODS: &str = "GET, HEAD, OPTIONS, POST";

/// A compressed gRPC message in a call without `grpc-encoding`; INTERNAL, as the gRPC specification says.
pub const COMPRESSION_UNNAMED: &str = "the message is marked as compressed, but the header grpc-encoding is missing";

/// 404: the path does not exist.
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

/// 405: the path supports other methods. `allowed` is the value of the header `Allow`.
#[must_use]
pub fn wrong_method(path: &str, allowed: &str, used: &str) -> String {
    format!("{} takes {allowed}, not {used}", shown(path))
}

/// 404: the model has no such version.
#[must_use]
pub fn no_version(model: &str, version: &str, there: &[&str]) -> String {
    format!("model `{model}` has no version `{}`; it has {}", shown(version), there.join(", "))
}

/// 404: the model does not exist. Clients for Triton and KServe search for the first words.
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

/// UNIMPLEMENTED: a gRPC service. `served` is a service that exists.
#[must_use]
pub fn no_service(name: &str, served: &str) -> String {
    format!("the service {} is not supported; use {served}", shown(name))
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
