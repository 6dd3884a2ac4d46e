//! The open mode keeps web pages away.

use modelway_control::Config;
use reqwest::Method;

use crate::support::{Plane, answer, plane, plane_with, sample};

async fn get(plane: &Plane, headers: &[(&str, &str)]) -> crate::support::Answer {
    let request = plane.request(Method::GET, "/v1/modelDeployment");
    answer(headers.iter().fold(request, |request, (name, value)| request.header(*name, *value))).await
}

#[tokio::test]
async fn a_name_that_was_rebound_to_loopback_is_refused() {
    let plane = plane().await;
    get(&plane, &[("host", "evil.example:8081")]).await.refused(421, "host_not_allowed").saying("allowed_hosts");
    assert_eq!(get(&plane, &[("host", "localhost:8081")]).await.status, 200);
}

#[tokio::test]
async fn a_page_of_another_site_cannot_deploy() {
    let plane = plane().await;
    let request = plane.request(Method::POST, "/v1/modelDeployment").header("origin", "https://evil.example");
    answer(request.json(&sample())).await.refused(403, "origin_not_allowed").saying("evil.example");
    assert_eq!(get(&plane, &[("origin", "http://localhost:3000")]).await.status, 200);
}

#[tokio::test]
async fn the_page_to_try_the_api_cannot_be_framed() {
    let plane = plane().await;
    assert_eq!(plane.get("/docs/").await.header("x-frame-options"), "DENY");
}

#[tokio::test]
async fn over_http2_it_is_the_authority_that_counts() {
    let plane = plane().await;
    let client = base::client::builder().http2_prior_knowledge().build().expect("a client");
    let url = plane.url("/v1/modelDeployment");
    let response = client.get(&url).send().await.expect("an answer");
    assert_eq!((response.version(), response.status().as_u16()), (reqwest::Version::HTTP_2, 200));
    let evil = base::client::builder().http2_prior_knowledge().resolve("evil.example", plane.address);
    let url = format!("http://evil.example:{}/v1/modelDeployment", plane.address.port());
    let response = evil.build().expect("a client").get(url).send().await.expect("an answer");
    crate::support::read(response).await.refused(421, "host_not_allowed");
}

#[tokio::test]
async fn further_hosts_can_be_allowed() {
    let plane = plane_with(Config { allowed_hosts: vec!["ml.example".into()], ..Config::default() }).await;
    let headers = [("host", "ml.example"), ("origin", "https://ml.example")];
    assert_eq!(get(&plane, &headers).await.status, 200);
}
