//! The errors that end a server, and those that refuse a request.

use std::path::PathBuf;

use api::replica::{EXIT_MODEL_INVALID, TerminationMessage};
use inference::Malformed;

use crate::runtime::RuntimeError;

/// Why `serve` ended unexpectedly.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// No source was given.
    #[error("there is nothing to serve: name an ONNX file, a folder or a URI, as in `modelway serve ./model.onnx`")]
    NoSource,
    /// The artefact could not be fetched.
    #[error("{message}")]
    Artifact {
        /// The stable code from the artefact cache.
        code: &'static str,
        /// What happened and what to do.
        message: String,
        /// Whether a retry may help.
        retry: bool,
    },
    /// The source contains no model, or an ambiguous one.
    #[error("{0}")]
    Source(String),
    /// A model's configuration asks for something that is impossible or untrue.
    #[error("{place}: {reason}")]
    ModelConfig {
        /// The file, or another source of the configuration.
        place: String,
        /// What is wrong, with the line.
        reason: String,
    },
    /// ONNX Runtime is not available.
    #[error("{0}")]
    NoRuntime(String),
    /// The file is not a loadable model.
    #[error("{path} cannot be loaded: {reason}", path = .path.display())]
    Load {
        /// The file.
        path: PathBuf,
        /// The error text of the runtime.
        reason: String,
    },
    /// `golden.json` is invalid.
    #[error("{path}: {reason}", path = .path.display())]
    GoldenFile {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// The model gives different answers for its golden examples.
    #[error("{0}")]
    GoldenMismatch(String),
    /// A Python model cannot be loaded.
    #[error("{path} cannot be loaded: {reason}", path = .path.display())]
    Python {
        /// The file or folder.
        path: PathBuf,
        /// The error text of Python, or how the worker ended.
        reason: String,
    },
    /// A Python model reached its memory limit while it was loaded.
    #[error(
        "{path} cannot be loaded: it is out of memory, its limit is {limit}; raise the limit or serve a smaller model: {reason}",
        path = .path.display()
    )]
    OutOfMemory {
        /// The file or folder.
        path: PathBuf,
        /// The limit, and the name of its setting.
        limit: String,
        /// The error text of Python.
        reason: String,
    },
    /// The environment of a Python model cannot be built.
    #[error("{reason}")]
    Environment {
        /// Which line of which file, why, and what to do.
        reason: String,
        /// Whether a retry may help, for example after a network failure.
        retry: bool,
    },
    /// The server cannot listen on the address.
    #[error("{0}")]
    Address(String),
    /// An operating system error.
    #[error("{what}: {source}")]
    Io {
        /// The operation.
        what: String,
        /// The error of the operating system.
        #[source]
        source: std::io::Error,
    },
    /// A task of the server failed.
    #[error("the server broke off: {0}")]
    Broken(String),
}

impl ServeError {
    /// A stable code.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Self::NoSource | Self::Source(_) => "model_not_found",
            Self::Artifact { code, .. } => code,
            Self::NoRuntime(_) => "onnxruntime_missing",
            Self::Load { .. } => "model_invalid",
            Self::ModelConfig { .. } => "model_config_invalid",
            Self::GoldenFile { .. } => "golden_invalid",
            Self::GoldenMismatch(_) => "golden_mismatch",
            Self::Python { .. } => "python_failed",
            Self::OutOfMemory { .. } => "out_of_memory",
            Self::Environment { .. } => "environment_failed",
            Self::Io { .. } | Self::Address(_) | Self::Broken(_) => "serve_failed",
        }
    }

    /// Whether a person must change something before a restart can help.
    #[must_use]
    pub fn is_permanent(&self) -> bool {
        match self {
            Self::Artifact { retry, .. } | Self::Environment { retry, .. } => !retry,
            Self::Io { .. } | Self::Address(_) | Self::Broken(_) => false,
            Self::NoSource
            | Self::Source(_)
            | Self::NoRuntime(_)
            | Self::Load { .. }
            | Self::Python { .. }
            | Self::OutOfMemory { .. }
            | Self::ModelConfig { .. }
            | Self::GoldenFile { .. }
            | Self::GoldenMismatch(_) => true,
        }
    }

    /// The exit status, which tells a supervisor whether to restart at once.
    #[must_use]
    pub fn exit_code(&self) -> u8 {
        if self.is_permanent() { EXIT_MODEL_INVALID } else { 1 }
    }

    /// The content of the termination message.
    #[must_use]
    pub fn termination(&self) -> TerminationMessage {
        TerminationMessage { code: self.code().to_owned(), message: self.to_string(), files: None }
    }
}

/// Why a request got no prediction, grouped by who can do something about it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InferError {
    /// The caller: the request is wrong.
    #[error("{0}")]
    Invalid(String),
    /// The caller: the model or version does not exist.
    #[error("{0}")]
    NotFound(String),
    /// Nobody yet: the model is being loaded, or the server is shutting down.
    #[error("{0}")]
    NotReady(String),
    /// The caller, later: the queue is full.
    #[error(
        "model `{model}` has {limit} requests waiting, its limit (serve.queue_limit, or max_queue_size in its config.pbtxt): try again"
    )]
    QueueFull {
        /// The model.
        model: String,
        /// The limit.
        limit: usize,
    },
    /// Nobody's: the memory that the run needs is held by other runs now.
    #[error("{0}")]
    MemoryFull(String),
    /// The answer did not come in time.
    #[error("no answer within {0} ms (serve.request_timeout_ms, or the request's own `timeout`)")]
    TimedOut(u128),
    /// Nobody: this server does not support it.
    #[error("{0}")]
    Unsupported(String),
    /// The model: it failed on a request that fits its signature.
    #[error("{0}")]
    Failed(String),
}

impl InferError {
    /// The value of `error_type` in the metrics.
    #[must_use]
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Invalid(_) | Self::Unsupported(_) => "invalid_input",
            Self::NotFound(_) => "not_found",
            Self::NotReady(_) => "not_ready",
            Self::QueueFull { .. } => "queue_full",
            Self::MemoryFull(_) => "memory_full",
            Self::TimedOut(_) => "timeout",
            Self::Failed(_) => "model_failed",
        }
    }
}

impl From<Malformed> for InferError {
    fn from(malformed: Malformed) -> Self {
        Self::Invalid(malformed.0)
    }
}

impl From<RuntimeError> for InferError {
    fn from(error: RuntimeError) -> Self {
        match error {
            RuntimeError::Rejected(reason) => Self::Invalid(reason),
            RuntimeError::Unavailable(reason) => Self::NotReady(reason),
            RuntimeError::MemoryFull(reason) => Self::MemoryFull(reason),
            RuntimeError::Cancelled => Self::Failed("the run was ended from outside".to_owned()),
            RuntimeError::Failed(reason) => Self::Failed(reason),
        }
    }
}
