//! Why a server ends, and why a request is refused.

use std::path::PathBuf;

use api::replica::{EXIT_MODEL_INVALID, TerminationMessage};
use inference::Malformed;

use crate::runtime::RuntimeError;

/// Why `serve` ended without having been told to.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// Nothing was named to serve.
    #[error("there is nothing to serve: name an ONNX file, a folder or a URI, as in `modelway serve ./model.onnx`")]
    NoSource,
    /// The artefact could not be brought here.
    #[error("{message}")]
    Artifact {
        /// The artefact's own stable word.
        code: &'static str,
        /// What happened and what to do.
        message: String,
        /// Whether trying again may help.
        retry: bool,
    },
    /// The source holds no model, or not clearly one.
    #[error("{0}")]
    Source(String),
    /// What a model's configuration says cannot be done, or is not so.
    #[error("{place}: {reason}")]
    ModelConfig {
        /// The file, or whatever else said it.
        place: String,
        /// What is wrong with it, with its line.
        reason: String,
    },
    /// ONNX Runtime is not to be had.
    #[error("{0}")]
    NoRuntime(String),
    /// The file is no model that can be loaded.
    #[error("{path} cannot be loaded: {reason}", path = .path.display())]
    Load {
        /// The file.
        path: PathBuf,
        /// The runtime's words.
        reason: String,
    },
    /// `golden.json` cannot be used.
    #[error("{path}: {reason}", path = .path.display())]
    GoldenFile {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// The model answers its golden examples differently.
    #[error("{0}")]
    GoldenMismatch(String),
    /// A Python model cannot be loaded.
    #[error("{path} cannot be loaded: {reason}", path = .path.display())]
    Python {
        /// The file or folder.
        path: PathBuf,
        /// Python's words, or what became of the worker.
        reason: String,
    },
    /// A Python model got no more memory while it was loaded.
    #[error(
        "{path} cannot be loaded: it is out of memory, its limit is {limit}; raise the limit or serve a smaller model: {reason}",
        path = .path.display()
    )]
    OutOfMemory {
        /// The file or folder.
        path: PathBuf,
        /// The limit, and the setting that it is.
        limit: String,
        /// Python's words.
        reason: String,
    },
    /// The environment that a Python model wants cannot be had.
    #[error("{reason}")]
    Environment {
        /// Which line of which file, why, and what to do.
        reason: String,
        /// Whether trying again may help: a network that did not answer.
        retry: bool,
    },
    /// The address cannot be listened on.
    #[error("{0}")]
    Address(String),
    /// Something of the machine failed.
    #[error("{what}: {source}")]
    Io {
        /// What was tried.
        what: String,
        /// What the machine said.
        #[source]
        source: std::io::Error,
    },
    /// The server's own work broke off.
    #[error("the server broke off: {0}")]
    Broken(String),
}

impl ServeError {
    /// A stable word.
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

    /// Whether a person must change something before another start can help.
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

    /// The exit status that tells a supervisor whether to start again at once.
    #[must_use]
    pub fn exit_code(&self) -> u8 {
        if self.is_permanent() { EXIT_MODEL_INVALID } else { 1 }
    }

    /// What goes into the termination message.
    #[must_use]
    pub fn termination(&self) -> TerminationMessage {
        TerminationMessage { code: self.code().to_owned(), message: self.to_string(), files: None }
    }
}

/// Why a request got no prediction, sorted by whose move it is.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InferError {
    /// The caller's: the request is wrong.
    #[error("{0}")]
    Invalid(String),
    /// The caller's: no such model or version.
    #[error("{0}")]
    NotFound(String),
    /// Nobody's yet: the model is being loaded, or the server is ending.
    #[error("{0}")]
    NotReady(String),
    /// The caller's, later: too many wait already.
    #[error(
        "model `{model}` has {limit} requests waiting, its limit (serve.queue_limit, or max_queue_size in its config.pbtxt): try again"
    )]
    QueueFull {
        /// The model.
        model: String,
        /// The bound.
        limit: usize,
    },
    /// Nobody's: the memory that the run needs is held by other runs now.
    #[error("{0}")]
    MemoryFull(String),
    /// The answer did not come in time.
    #[error("no answer within {0} ms (serve.request_timeout_ms, or the request's own `timeout`)")]
    TimedOut(u128),
    /// Nobody's: this server does not do it.
    #[error("{0}")]
    Unsupported(String),
    /// The model's: it failed on a request that fits its signature.
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
