//! The commands for registered models and model files.

use std::path::PathBuf;

use clap::{Args, Subcommand};

use super::common::{Connection, Output, pair};

/// Manage the registry: models and their immutable versions
///
/// A deployment can name a registered version instead of a bucket: modelway deploy models:/iris/v1
#[derive(Clone, Debug, Subcommand)]
#[command(after_help = "\
Examples:
  modelway models register iris
  modelway models add-version iris v1 s3://models/iris/1
  modelway deploy models:/iris/v1 --name iris")]
pub enum Models {
    /// Register a model
    Register(ModelRegister),
    /// Add a version to a model
    AddVersion(ModelAddVersion),
    /// List the models
    #[command(after_help = "Example:\n  modelway models list")]
    List {
        /// The output format.
        #[command(flatten)]
        output: Output,
        /// The control plane.
        #[command(flatten)]
        connection: Connection,
    },
    /// Show a model and its versions
    #[command(after_help = "Example:\n  modelway models get iris")]
    Get {
        /// Model to use
        name: String,
        /// The output format.
        #[command(flatten)]
        output: Output,
        /// The control plane.
        #[command(flatten)]
        connection: Connection,
    },
    /// Remove a version, or a model that has none
    Delete(ModelDelete),
    /// Print the digest of a model's files, for --digest
    #[command(after_help = "Example:\n  modelway deploy ./iris --digest $(modelway models digest ./iris)")]
    Digest {
        /// The file or folder
        path: PathBuf,
    },
}

/// Register a model
#[derive(Clone, Debug, Args)]
#[command(
    after_help = "Example:\n  modelway models register iris --description 'Which iris is it?' --label team=botany"
)]
pub struct ModelRegister {
    /// Name of the model
    pub name: String,
    /// Description of the model
    #[arg(long, default_value = "", hide_default_value = true)]
    pub description: String,
    /// Set a label
    #[arg(long, value_name = "KEY=VALUE", value_parser = pair)]
    pub label: Vec<(String, String)>,
    /// The output format.
    #[command(flatten)]
    pub output: Output,
    /// The control plane.
    #[command(flatten)]
    pub connection: Connection,
}

/// Add a version to a model
#[derive(Clone, Debug, Args)]
#[command(after_help = "\
Examples:
  modelway models add-version iris v1 s3://models/iris/1 --format onnx
  modelway models add-version iris v2 ./iris
  modelway models add-version churn v1 --uri models:/churn@champion")]
pub struct ModelAddVersion {
    /// Model to use
    pub model: String,
    /// Name of the version
    pub version: String,
    /// Location of the files: a path, a URI, or an MLflow URI, whose alias is resolved now
    #[arg(value_name = "SOURCE", required_unless_present_any = ["image", "uri"], conflicts_with_all = ["image", "uri"])]
    pub source: Option<String>,
    /// The same as SOURCE
    #[arg(long, value_name = "URI", conflicts_with = "image")]
    pub uri: Option<String>,
    /// Container image that serves the model
    #[arg(long, value_name = "REFERENCE")]
    pub image: Option<String>,
    /// Format of the files, for example onnx
    #[arg(long)]
    pub format: Option<String>,
    /// Required digest of the files, sha256:…
    #[arg(long, value_name = "DIGEST")]
    pub digest: Option<String>,
    /// The output format.
    #[command(flatten)]
    pub output: Output,
    /// The control plane.
    #[command(flatten)]
    pub connection: Connection,
}

/// Remove a version, or a model that has none
///
/// A version that a deployment uses cannot be removed.
#[derive(Clone, Debug, Args)]
#[command(after_help = "\
Examples:
  modelway models delete iris v1
  modelway models delete iris")]
pub struct ModelDelete {
    /// Model to use
    pub model: String,
    /// Remove only this version
    pub version: Option<String>,
    /// The control plane.
    #[command(flatten)]
    pub connection: Connection,
}

/// Record a model's expected answers
#[derive(Clone, Debug, Subcommand)]
#[command(after_help = "\
Example:
  modelway golden record ./iris --request request.json")]
pub enum Golden {
    /// Ask a model and write its answers to golden.json beside it
    Record(GoldenRecord),
}

/// Ask a model and write its answers to golden.json beside it
///
/// A replica whose answers differ never becomes ready. Without --request, the command makes requests that fit the
/// model's inputs.
#[derive(Clone, Debug, Args)]
#[command(after_help = "\
Examples:
  modelway golden record ./iris
  modelway golden record ./iris --request one.json --request two.json")]
pub struct GoldenRecord {
    /// The model: an ONNX file, a Python file, or a folder with one
    #[arg(value_name = "SOURCE")]
    pub source: String,
    /// File with an Open Inference Protocol request
    #[arg(long, value_name = "FILE")]
    pub request: Vec<PathBuf>,
}
