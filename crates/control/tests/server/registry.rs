//! The model registry.

use serde_json::json;

use crate::support::{plane, sample_with};

const PATH: &str = "/v1/registeredModels";

#[tokio::test]
async fn models_and_versions_are_registered_read_listed_and_deleted() {
    let plane = plane().await;
    let made = plane.post(PATH, &json!({"name": "iris", "description": "flowers"})).await;
    assert_eq!((made.status.as_u16(), made.header("location")), (201, "/v1/registeredModels/iris"));
    plane.post(PATH, &json!({"name": "iris"})).await.refused(409, "name_taken");
    for version in ["10", "9", "rc"] {
        let made =
            plane.post(&format!("{PATH}/iris/versions"), &json!({"version": version, "uri": "/models/iris"})).await;
        assert_eq!(made.status, 201, "{}", made.body);
        assert_eq!(made.header("location"), format!("{PATH}/iris/versions/{version}"));
    }
    let image = json!({"version": "c", "image": "r/iris:1", "format": "container"});
    assert_eq!(plane.post(&format!("{PATH}/iris/versions"), &image).await.status, 201);
    plane.post(&format!("{PATH}/iris/versions"), &image).await.refused(409, "exists");

    let versions = plane.get(&format!("{PATH}/iris/versions")).await;
    let names: Vec<_> =
        versions.body["items"].as_array().expect("a list").iter().map(|v| v["version"].clone()).collect();
    assert_eq!(names, ["9", "10", "rc", "c"], "numbers as numbers, then by age");
    assert_eq!(plane.get(&format!("{PATH}/iris/versions/c")).await.body["image"], "r/iris:1");
    assert_eq!(plane.get(&format!("{PATH}/iris")).await.body["description"], "flowers");
    assert_eq!(plane.get(PATH).await.body["items"][0]["name"], "iris");

    plane.delete(&format!("{PATH}/iris")).await.refused(409, "in_use");
    for version in ["9", "10", "rc", "c"] {
        assert_eq!(plane.delete(&format!("{PATH}/iris/versions/{version}")).await.status, 204);
    }
    assert_eq!(plane.delete(&format!("{PATH}/iris")).await.status, 204);
    plane.get(&format!("{PATH}/iris")).await.refused(404, "not_found");
}

#[tokio::test]
async fn what_is_not_there_names_what_was_probably_meant() {
    let plane = plane().await;
    plane.post(PATH, &json!({"name": "iris"})).await;
    plane.post(&format!("{PATH}/iris/versions"), &json!({"version": "2024-01", "uri": "/m"})).await;
    plane.get(&format!("{PATH}/irsi")).await.refused(404, "not_found").saying("did you mean `iris`?");
    plane
        .get(&format!("{PATH}/iris/versions/2024-10"))
        .await
        .refused(404, "not_found")
        .saying("did you mean `2024-01`?");
    plane.delete(&format!("{PATH}/iris/versions/x")).await.refused(404, "not_found");
    plane.post(&format!("{PATH}/irsi/versions"), &json!({"version": "1", "uri": "/m"})).await.refused(404, "not_found");
    let both = json!({"version": "1", "uri": "/m", "image": "i"});
    plane.post(&format!("{PATH}/iris/versions"), &both).await.refused(422, "invalid_payload");
    plane.post(PATH, &json!({"name": "md-1", "lables": {}})).await.refused(422, "invalid_payload").saying("2 faults");
}

#[tokio::test]
async fn a_deployment_may_name_a_registered_version_which_then_cannot_be_deleted() {
    let plane = plane().await;
    plane.post(PATH, &json!({"name": "iris"})).await;
    plane.post(&format!("{PATH}/iris/versions"), &json!({"version": "v1", "uri": "/models/iris"})).await;
    let deployment = |name: &str, version: &str| sample_with(&json!({"model": {"name": name, "version": version}}));
    let made = plane.post("/v1/modelDeployment", &deployment("iris", "v1")).await;
    assert_eq!(made.status, 201, "{}", made.body);
    assert_eq!(made.body["model"], json!({"name": "iris", "version": "v1"}));
    plane.delete(&format!("{PATH}/iris/versions/v1")).await.refused(409, "in_use").saying("deployment 1");

    let wrong = plane.post("/v1/modelDeployment", &deployment("iris", "v2")).await;
    wrong.refused(422, "invalid_payload").saying("did you mean `v1`?");
    assert_eq!(wrong.fault_pointers(), ["/model/version"]);
    let wrong = plane.post("/v1/modelDeployment", &deployment("iriss", "v1")).await;
    wrong.refused(422, "invalid_payload").saying("did you mean `iris`?");
    assert_eq!(wrong.fault_pointers(), ["/model/name"]);
    let id = made.body["id"].as_i64().expect("an id");
    let wrong = plane.patch(&format!("/v1/modelDeployment/{id}"), &json!({"model": {"version": "v3"}})).await;
    assert_eq!(wrong.refused(422, "invalid_payload").fault_pointers(), ["/model/version"]);

    let of_model = plane.get("/v1/modelDeployment?model=iris").await;
    assert_eq!(of_model.body["items"][0]["id"], id);
    assert_eq!(plane.get("/v1/modelDeployment?model=other").await.body["items"], json!([]));
}
