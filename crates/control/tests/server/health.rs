//! Health, metrics and the page to try the API.

use serde_json::json;

use crate::support::plane;

#[tokio::test]
async fn it_is_live_and_ready_while_the_database_answers() {
    let plane = plane().await;
    assert_eq!(plane.get("/health/live").await.body, json!({"status": "ok"}));
    assert_eq!(plane.get("/health/ready").await.body, json!({"status": "ok"}));
}

#[tokio::test]
async fn requests_are_counted_by_the_templates_of_their_paths() {
    let plane = plane().await;
    let id = plane.create(&json!({})).await;
    plane.create(&json!({})).await;
    plane.activate(id).await;
    plane.get(&format!("/v1/modelDeployment/{id}")).await;
    plane.get("/v1/modelDeployment/4711").await;
    plane.get("/nothing").await;
    let metrics = plane.get("/metrics").await;
    assert!(metrics.header("content-type").starts_with("application/openmetrics-text"));
    let text = metrics.body.as_str().expect("text");
    for line in [
        r#"modelway_control_requests_total{method="POST",route="/v1/modelDeployment",code="201"} 2"#,
        r#"modelway_control_requests_total{method="GET",route="/v1/modelDeployment/{id}",code="200"} 1"#,
        r#"modelway_control_requests_total{method="GET",route="/v1/modelDeployment/{id}",code="404"} 1"#,
        r#"modelway_control_requests_total{method="GET",route="unmatched",code="404"} 1"#,
        r#"modelway_deployments{state="active"} 1"#,
        r#"modelway_deployments{state="pending"} 1"#,
        r#"modelway_deployments{state="failed"} 0"#,
        "modelway_control_store_up 1",
        r#"modelway_control_request_duration_seconds_count{method="POST",route="/v1/modelDeployment"} 2"#,
    ] {
        assert!(text.lines().any(|found| found == line), "{line} is not in\n{text}");
    }
    assert!(text.contains("process_resident_memory_bytes "), "{text}");
}

#[tokio::test]
async fn the_description_and_the_page_to_try_it_need_no_internet() {
    let plane = plane().await;
    let document = plane.get("/openapi.json").await;
    assert_eq!(document.body["openapi"], "3.1.0");
    assert!(document.body["paths"]["/v1/modelDeployment"]["post"].is_object());
    let page = plane.get("/docs/").await;
    assert_eq!(page.status, 200);
    let html = page.body.as_str().expect("a page");
    assert!(!html.contains("https://"), "{html}");
    assert_eq!(plane.get("/docs/swagger-ui-bundle.js").await.status, 200);
    let settings = plane.get("/docs/swagger-initializer.js").await;
    assert!(settings.body.as_str().expect("a script").contains("/openapi.json"));
}
