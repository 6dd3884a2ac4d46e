//! The environment of a worker.
//!
//! Variables that a person has set for the model are passed unchanged, whatever their names are. From the rest of the
//! server's environment, a model that is served by hand gets everything, and one of a replica only what programs need
//! from the system. Other credentials are not passed, except to models that use the corresponding service. Thread
//! settings are set here only if nobody else has set them.

use std::{collections::BTreeMap, ffi::OsString, path::Path};

use super::{
    environment::{Requirement, Wanted},
    imports,
};
use crate::settings::Passed;

/// Variables that programs need from the system.
const OF_THE_SYSTEM: [&str; 21] = [
    "PATH",
    "HOME",
    "USER",
    "LANG",
    "TZ",
    "TMPDIR",
    "LD_LIBRARY_PATH",
    "SSL_CERT_FILE",
    "SSL_CERT_DIR",
    "REQUESTS_CA_BUNDLE",
    "http_proxy",
    "https_proxy",
    "no_proxy",
    "HTTP_PROXY",
    "HTTPS_PROXY",
    "NO_PROXY",
    "XDG_CACHE_HOME",
    "CUDA_VISIBLE_DEVICES",
    "ORT_DISABLE_TELEMETRY",
    "OMP_NUM_THREADS",
    "LOKY_MAX_CPU_COUNT",
];
/// Variables of the models' libraries.
const OF_LIBRARIES: [&str; 9] =
    ["LC_", "HF_", "TORCH_", "TRANSFORMERS_", "NVIDIA_", "CUDA_", "MLFLOW_", "OPENBLAS_", "MKL_"];

/// Credentials, and the packages that use them.
struct Credentials {
    /// The prefix of their names.
    prefixes: &'static [&'static str],
    /// A word that the name must also contain, between `_`; if there is none, every name matches.
    words: &'static [&'static str],
    /// Packages, by the beginnings of their names.
    packages: &'static [&'static str],
}

const SECRET: &[&str] = &["TOKEN", "KEY", "SECRET", "PASSWORD", "CREDENTIAL", "CREDENTIALS"];

const CREDENTIALS: [Credentials; 5] = [
    // An MLflow address may contain a password.
    Credentials { prefixes: &["MLFLOW_", "DATABRICKS_"], words: &[], packages: &["mlflow"] },
    Credentials {
        prefixes: &["HF_", "HUGGING_FACE_", "HUGGINGFACE_", "HUGGINGFACEHUB_"],
        words: SECRET,
        packages: &[
            "huggingface",
            "langchain-huggingface",
            "transformers",
            "sentence-transformers",
            "diffusers",
            "datasets",
            "tokenizers",
            "accelerate",
            "peft",
            "optimum",
            "setfit",
            "timm",
            "vllm",
        ],
    },
    Credentials {
        prefixes: &["AWS_"],
        words: SECRET,
        packages: &["boto", "aioboto", "s3fs", "awswrangler", "sagemaker"],
    },
    Credentials {
        prefixes: &["GOOGLE_", "GCP_", "GCLOUD_"],
        words: SECRET,
        packages: &["google-", "gcsfs", "vertexai"],
    },
    Credentials { prefixes: &["AZURE_"], words: SECRET, packages: &["azure", "adlfs"] },
];

/// Which credentials a model may need.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Uses([bool; CREDENTIALS.len()]);

impl Uses {
    /// From a model class: its required packages, and the modules that its file imports.
    pub(crate) fn of_class(wanted: Option<&Wanted>, file: &Path) -> Self {
        // A module usually has the name of its project.
        Self::of(wanted, imports::of_file(file).into_iter().map(|module| module.replace(['_', '.'], "-")))
    }

    /// From the required packages, and those that it is known to use.
    pub(crate) fn of(wanted: Option<&Wanted>, known: impl IntoIterator<Item = String>) -> Self {
        let mut packages: Vec<String> =
            wanted.into_iter().flat_map(|wanted| &wanted.requirements).map(Requirement::name).collect();
        packages.extend(known);
        Self(
            CREDENTIALS
                .map(|of| packages.iter().any(|package| of.packages.iter().any(|start| package.starts_with(start)))),
        )
    }
}

impl Credentials {
    fn have(&self, name: &str) -> bool {
        self.prefixes.iter().any(|prefix| name.starts_with(prefix))
            && (self.words.is_empty() || name.split('_').any(|part| self.words.contains(&part)))
    }
}

/// The variables of a worker, and the names of the credentials that it does not get.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Variables {
    pub(super) set: BTreeMap<String, OsString>,
    pub(super) withheld: Vec<String>,
}

/// Selects among the server's own variables, and adds defaults. `threads` is for the libraries.
pub(super) fn choose(
    own: impl Iterator<Item = (String, OsString)>,
    passed: &Passed,
    uses: Uses,
    threads: usize,
) -> Variables {
    let mut chosen = Variables::default();
    for (name, value) in own {
        if passed.names.contains(&name) {
            chosen.set.insert(name, value);
            continue;
        }
        let ours = name.starts_with(base::config::PREFIX) || name == base::config::FILE_VARIABLE;
        let usual =
            OF_THE_SYSTEM.contains(&name.as_str()) || OF_LIBRARIES.iter().any(|prefix| name.starts_with(prefix));
        if ours || !(passed.all || usual) {
            continue;
        }
        let needed = CREDENTIALS.iter().zip(uses.0).all(|(of, used)| used || !of.have(&name));
        if needed {
            chosen.set.insert(name, value);
        } else {
            chosen.withheld.push(name);
        }
    }
    chosen.withheld.sort_unstable();
    // The linear algebra libraries use OMP_NUM_THREADS unless something more specific is set.
    let names: &[&str] = if chosen.set.contains_key("OMP_NUM_THREADS") {
        &["LOKY_MAX_CPU_COUNT"]
    } else {
        &["OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "LOKY_MAX_CPU_COUNT"]
    };
    for name in names {
        chosen.set.entry((*name).to_owned()).or_insert_with(|| threads.max(1).to_string().into());
    }
    // Users did not agree to be counted by this library.
    chosen.set.entry("ORT_DISABLE_TELEMETRY".to_owned()).or_insert_with(|| "1".into());
    chosen
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn chosen(own: &[(&str, &str)], names: &[&str], all: bool, uses: Uses) -> Variables {
        let passed = Passed { names: names.iter().map(|name| (*name).to_owned()).collect(), all };
        let own = own.iter().map(|(name, value)| ((*name).to_owned(), (*value).into()));
        choose(own, &passed, uses, 2)
    }

    fn value<'v>(variables: &'v Variables, name: &str) -> Option<&'v str> {
        variables.set.get(name).and_then(|value| value.to_str())
    }

    const OWN: [(&str, &str); 8] = [
        ("DB_URL", "x"),
        ("PYTHONPATH", "/srv/lib"),
        ("HF_TOKEN", "h"),
        ("HF_HOME", "/hf"),
        ("MLFLOW_TRACKING_URI", "http://a:b@m"),
        ("AWS_SECRET_ACCESS_KEY", "s"),
        ("TOKENIZERS_PARALLELISM", "false"),
        ("MODELWAY__STORE__URL", "postgres://"),
    ];

    #[test]
    fn a_replica_s_model_gets_what_was_set_for_it_and_what_the_system_needs() {
        let got = chosen(&OWN, &["DB_URL", "PYTHONPATH"], false, Uses::default());
        let names: Vec<_> = got.set.keys().map(String::as_str).collect();
        let threads = ["LOKY_MAX_CPU_COUNT", "MKL_NUM_THREADS", "OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"];
        assert_eq!(names[..2], ["DB_URL", "HF_HOME"]);
        assert_eq!(names[2..6], [threads[0], threads[1], threads[2], threads[3]]);
        assert_eq!(names[6..], ["ORT_DISABLE_TELEMETRY", "PYTHONPATH"]);
    }

    #[test]
    fn a_model_that_is_served_by_hand_gets_what_is_exported_but_credentials_and_settings() {
        let got = chosen(&OWN, &[], true, Uses::default());
        for kept in ["DB_URL", "PYTHONPATH", "HF_HOME", "TOKENIZERS_PARALLELISM"] {
            assert!(got.set.contains_key(kept), "{kept}");
        }
        assert_eq!(got.withheld, ["AWS_SECRET_ACCESS_KEY", "HF_TOKEN", "MLFLOW_TRACKING_URI"]);
        assert!(!got.set.contains_key("MODELWAY__STORE__URL"));
        let named = chosen(&OWN, &["HF_TOKEN"], true, Uses::default());
        assert_eq!(value(&named, "HF_TOKEN"), Some("h"));
    }

    #[test]
    fn what_is_set_wins_over_the_threads_that_are_chosen_here() {
        let got = chosen(&[("OMP_NUM_THREADS", "3")], &["OMP_NUM_THREADS"], false, Uses::default());
        assert_eq!((value(&got, "OMP_NUM_THREADS"), value(&got, "OPENBLAS_NUM_THREADS")), (Some("3"), None));
        let got = chosen(&[("MKL_NUM_THREADS", "5"), ("OPENBLAS_NUM_THREADS", "")], &[], false, Uses::default());
        assert_eq!(value(&got, "MKL_NUM_THREADS"), Some("5"));
        assert_eq!((value(&got, "OPENBLAS_NUM_THREADS"), value(&got, "OMP_NUM_THREADS")), (Some(""), Some("2")));
        assert_eq!(value(&got, "ORT_DISABLE_TELEMETRY"), Some("1"));
    }

    #[test]
    fn credentials_go_to_models_that_use_what_they_are_for() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("model.py");
        let uses = |text: &str| {
            fs::write(&file, text).unwrap();
            Uses::of_class(None, &file)
        };
        let withheld = |uses| chosen(&OWN, &[], true, uses).withheld;
        let none = ["AWS_SECRET_ACCESS_KEY", "HF_TOKEN", "MLFLOW_TRACKING_URI"];
        assert_eq!(withheld(uses("import os\nimport numpy as np\n# import mlflow\n")), none);
        let some = ["AWS_SECRET_ACCESS_KEY", "MLFLOW_TRACKING_URI"];
        assert_eq!(withheld(uses("def f():\n    from sentence_transformers import X\n")), some);
        assert_eq!(withheld(uses("import huggingface_hub\n")), some);
        assert_eq!(withheld(uses("import os, huggingface_hub as hub\n")), some);
        assert_eq!(withheld(uses("from google import genai, auth\nfrom my import mlflow, boto3\n")), none);
        assert_eq!(withheld(uses("import mlflow.pyfunc\nimport boto3")), ["HF_TOKEN"]);
        fs::write(folder.path().join("requirements.txt"), "Transformers>=4\n").unwrap();
        let wanted = Wanted::of_folder(folder.path()).unwrap();
        assert_eq!(withheld(Uses::of(wanted.as_ref(), [])), some);
    }
}
