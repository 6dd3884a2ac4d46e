//! Schemathesis asks for everything that the OpenAPI document allows, and for much that it does not: the server and the
//! document must agree on what is right.

use std::path::Path;

use serde_json::json;

use crate::support::{plane, sample};

#[tokio::test]
async fn the_server_does_what_its_document_says() {
    agree(12).await;
}

#[tokio::test]
#[ignore = "make test-long runs it"]
async fn long_the_server_does_what_its_document_says() {
    agree(1_500).await;
}

/// Lets each operation be asked `cases` times by chance, beside the cases that follow from the document.
async fn agree(cases: usize) {
    let plane = plane().await;
    // The examples of the document are about the deployment 26 and the model `iris`.
    for _ in 1..=26 {
        plane.create(&json!({})).await;
    }
    let model = plane.post("/v1/registeredModels", &json!({"name": "iris"})).await;
    assert_eq!(model.status, 201, "{}", model.body);
    let version = json!({"version": "v1", "uri": sample()["model"]["bucket"]});
    let version = plane.post("/v1/registeredModels/iris/versions", &version).await;
    assert_eq!(version.status, 201, "{}", version.body);

    #[allow(clippy::disallowed_methods, reason = "the cache of the tests is no setting of Modelway")]
    let cache = std::env::var_os("MODELWAY_CACHE").map_or_else(
        || Path::new(&std::env::var_os("HOME").expect("a home")).join(".cache/modelway"),
        std::path::PathBuf::from,
    );
    let here = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/server/schema");
    let folder = tempfile::tempdir().expect("a folder");
    let run = tokio::process::Command::new(cache.join("clients/bin/schemathesis"))
        .arg("--config-file")
        .arg(here.join("schemathesis.toml"))
        .args(["run", &plane.url("/openapi.json"), "--no-color", "--continue-on-failure", "--no-shrink"])
        .args(["--phases", "examples,coverage,fuzzing", "--max-examples", &cases.to_string(), "--seed", "1"])
        // The watch of the route table is a stream that does not end.
        .args(["--exclude-operation-id", "watchRoutes", "--suppress-health-check", "all"])
        .args(["--generation-database", "none", "--warnings", "off"])
        .env("SCHEMATHESIS_HOOKS", "hooks")
        .env("PYTHONPATH", &here)
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .current_dir(folder.path())
        .kill_on_drop(true)
        .output()
        .await
        .expect("scripts/setup.sh test installs schemathesis");
    let said = String::from_utf8_lossy(&run.stdout);
    assert!(run.status.success(), "{said}{}", String::from_utf8_lossy(&run.stderr));
}
