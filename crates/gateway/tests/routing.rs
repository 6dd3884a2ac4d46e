//! Which request reaches whom, and what a client is told when it reaches nobody.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod harness;

use api::{
    DeploymentId, EndpointId, State,
    route::{Entry, Policy, form1::Route},
};
use harness::{Control, Gateway, Manner, Replica, config, eventually, revision, route};
use modelway_gateway::Config;

#[tokio::test]
async fn a_model_is_reached_by_id_by_name_and_by_version_in_both_protocols() {
    let (replica, control, gateway) = Gateway::simple(Manner::Well).await;
    let newer = Replica::start("b", Manner::Well).await;
    let both = vec![revision(1, "v1", 100, &[&replica]), revision(2, "v2", 0, &[&newer])];
    control.set(2, Some(Route { revisions: both, ..route("two", &[]) }));
    gateway.until_known("md-2").await;
    for (path, answered) in [
        ("/v2/models/md-1/infer", "a /v2/models/md-1/infer 2"),
        ("/v2/models/iris/infer", "a /v2/models/iris/infer 2"),
        ("/v1/models/iris:predict", "a /v1/models/iris:predict 2"),
        ("/v2/models/two/versions/v1/infer", "a /v2/models/two/versions/v1/infer 2"),
        ("/v2/models/two/versions/v2/infer", "b /v2/models/two/versions/v2/infer 2"),
        ("/v2/models/two/infer", "a /v2/models/two/infer 2"),
    ] {
        let (code, _, text) = gateway.post(path, "{}").await;
        assert_eq!((code, text.as_str()), (200, answered), "{path}");
    }
    let (code, _, text) = gateway.get("/v2/models/iris").await;
    assert_eq!((code, text.as_str()), (200, "a /v2/models/iris 0"));
    gateway.stop().await;
}

#[tokio::test]
async fn an_answer_says_which_deployment_revision_and_replica_it_came_from() {
    let (replica, _control, gateway) = Gateway::simple(Manner::Well).await;
    let (_, headers, _) = gateway.infer("iris").await;
    assert_eq!(headers["x-modelway-deployment"], "md-1");
    assert_eq!(headers["x-modelway-revision"], "1");
    assert_eq!(headers["x-modelway-replica"], "a");
    let made = headers["x-request-id"].clone();
    assert_eq!(made.len(), 32);
    assert_eq!(replica.seen.lock().unwrap()["x-request-id"], made, "the replica knows the same id");
    let asked =
        gateway.client.get(gateway.url("/v2/models/iris")).header("x-request-id", "mine-1").send().await.unwrap();
    assert_eq!(asked.headers()["x-request-id"], "mine-1");
    for evil in ["a\"b{}", "a b/7", &"a".repeat(129)] {
        let asked = gateway.client.get(gateway.url("/nowhere")).header("x-request-id", evil).send().await.unwrap();
        assert_eq!(asked.headers()["x-request-id"].len(), 32, "what could forge a log line is replaced: {evil}");
    }
    gateway.stop().await;
}

#[tokio::test]
async fn headers_of_the_clients_connection_do_not_reach_the_replica() {
    let (replica, _control, gateway) = Gateway::simple(Manner::Well).await;
    let request = gateway.client.post(gateway.url("/v2/models/iris/infer")).body("{}");
    request.header("connection", "x-secret").header("x-secret", "1").header("x-kept", "1").send().await.unwrap();
    let seen = replica.seen.lock().unwrap().clone();
    assert!(!seen.contains_key("x-secret") && !seen.contains_key("connection"), "{seen:?}");
    assert_eq!(seen["x-kept"], "1");
    gateway.stop().await;
}

#[tokio::test]
async fn a_name_that_nobody_has_is_404_with_the_names_that_are_near() {
    let (_replica, control, gateway) = Gateway::simple(Manner::Well).await;
    control.set(7, Some(route("digits", &[])));
    gateway.until_known("digits").await;
    let (code, _, text) = gateway.infer("irs").await;
    assert_eq!(code, 404);
    assert_eq!(text, r#"{"error":"Request for unknown model `irs`: did you mean `iris`?"}"#);
    let (code, _, text) = gateway.get("/v2/models/quite-other").await;
    assert_eq!(code, 404);
    assert!(text.contains("Request for unknown model `quite-other`: GET /v1/models lists"), "{text}");
    let (code, _, text) = gateway.post("/v2/models/iris/versions/v9/infer", "{}").await;
    assert_eq!(code, 404);
    assert!(text.contains("no version `v9`") && text.contains("v1"), "{text}");
    let (code, _, text) = gateway.get("/v3/models").await;
    assert_eq!(code, 404);
    assert!(text.contains("/v2/models/{model}/infer"), "{text}");
    gateway.stop().await;
}

#[tokio::test]
async fn the_wrong_method_is_405_and_says_the_right_one() {
    let (_replica, _control, gateway) = Gateway::simple(Manner::Well).await;
    for (path, allow) in [("/v2/models/iris/infer", "POST"), ("/v1/models/iris:predict", "POST")] {
        let (code, headers, _) = gateway.get(path).await;
        assert_eq!((code, headers["allow"].to_str().unwrap()), (405, allow), "{path}");
    }
    let (code, headers, _) = gateway.post("/v2/models/iris", "{}").await;
    assert_eq!((code, headers["allow"].to_str().unwrap()), (405, "GET, HEAD"));
    gateway.stop().await;
}

#[tokio::test]
async fn an_endpoint_without_replicas_is_503_with_its_reason() {
    let control = Control::start().await;
    let reason = Some("the model is being downloaded".to_owned());
    control.set(3, Some(Route { state: State::Pending, reason, revisions: Vec::new(), ..route("slow", &[]) }));
    let gateway = Gateway::start(&control).await;
    gateway.until_known("slow").await;
    let (code, headers, text) = gateway.infer("slow").await;
    assert_eq!(code, 503);
    assert!(headers.contains_key("retry-after"));
    assert!(text.contains("slow is pending: the model is being downloaded"), "{text}");
    gateway.stop().await;
}

#[tokio::test]
async fn the_gateway_answers_for_itself() {
    let (_replica, _control, gateway) = Gateway::simple(Manner::Well).await;
    let (alive, live, ready) = (r#"{"status":"alive"}"#, r#"{"live":true}"#, r#"{"ready":true}"#);
    for (path, wanted) in [
        ("/", alive),
        ("/health", alive),
        ("/health/live", alive),
        ("/v2/health/live", live),
        ("/ready", ready),
        ("/health/ready", ready),
        ("/v2/health/ready", ready),
    ] {
        let (code, headers, text) = gateway.get(path).await;
        assert_eq!((code, text.as_str()), (200, wanted), "{path}");
        assert!(headers.contains_key("x-request-id"), "{path}");
    }
    let (code, _, text) = gateway.get("/v2").await;
    assert!(code == 200 && text.contains("\"statistics\"") && !text.contains("model_repository"), "{text}");
    let (_, _, text) = gateway.get("/v1/models").await;
    assert_eq!(text, r#"{"models":["iris","md-1"]}"#);
    gateway.stop().await;
}

#[tokio::test]
async fn a_gateway_without_a_table_lives_but_is_not_ready() {
    let nowhere = Config { control_url: "http://127.0.0.1:9".to_owned(), ..config() };
    let gateway = Gateway::with(nowhere).await;
    assert_eq!(gateway.get("/health/live").await.0, 200);
    let (code, headers, text) = gateway.get("/v2/health/ready").await;
    assert_eq!(code, 503);
    let body: serde_json::Value = serde_json::from_str(&text).unwrap();
    assert!(body["error"].as_str().unwrap().starts_with("this gateway has no route table yet"), "{text}");
    assert_eq!(body["ready"], false, "{text}");
    assert!(headers.contains_key("retry-after"));
    assert_eq!(gateway.infer("iris").await.0, 503, "what it does not know yet is not called unknown");
    gateway.stop().await;
}

#[tokio::test]
async fn a_web_page_of_another_site_is_refused() {
    let (replica, _control, gateway) = Gateway::simple(Manner::Well).await;
    let request = gateway.client.post(gateway.url("/v2/models/iris/infer")).body("{}");
    let response = request.header("origin", "https://evil.example").send().await.unwrap();
    assert_eq!(response.status(), 403);
    assert_eq!(replica.requests(), 0);
    gateway.stop().await;
}

#[tokio::test]
async fn revisions_share_requests_by_weight() {
    let (old, new) = (Replica::start("old", Manner::Well).await, Replica::start("new", Manner::Well).await);
    let control = Control::start().await;
    let revisions = vec![revision(1, "v1", 90, &[&old]), revision(2, "v2", 10, &[&new])];
    control.set(1, Some(Route { revisions, ..route("iris", &[]) }));
    let gateway = Gateway::start(&control).await;
    gateway.until_known("md-1").await;
    for _ in 0..100 {
        assert_eq!(gateway.infer("iris").await.0, 200);
    }
    assert!((88..=92).contains(&old.requests()), "{} of 100 went to the old one", old.requests());
    assert_eq!(old.requests() + new.requests(), 100);
    gateway.stop().await;
}

#[tokio::test]
async fn a_replica_on_a_unix_socket_is_reached() {
    let folder = harness::folder();
    let socket = folder.path().join("r.sock");
    let listener = tokio::net::UnixListener::bind(&socket).unwrap();
    base::Tasks::new().spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            let service = hyper::service::service_fn(|request: http::Request<hyper::body::Incoming>| async move {
                let path = request.uri().path().to_owned();
                Ok::<_, std::io::Error>(http::Response::new(harness::text(format!("unix {path}"))))
            });
            let serving = hyper::server::conn::http1::Builder::new()
                .serve_connection(hyper_util::rt::TokioIo::new(stream), service);
            base::Tasks::new().spawn(serving);
        }
    });
    let unused = Replica::start("a", Manner::Well).await;
    let mut route = route("iris", &[&unused]);
    route.revisions[0].replicas[0].address = api::replica::Address::Unix(socket);
    let control = Control::start().await;
    control.set(1, Some(route));
    let gateway = Gateway::start(&control).await;
    gateway.until_known("md-1").await;
    for _ in 0..3 {
        let (code, _, text) = gateway.infer("iris").await;
        assert_eq!((code, text.as_str()), (200, "unix /v2/models/iris/infer"));
    }
    gateway.stop().await;
}

#[tokio::test]
async fn an_endpoint_that_requires_what_this_gateway_cannot_do_is_refused_in_words() {
    let replica = Replica::start("a", Manner::Well).await;
    let control = Control::start().await;
    let (policy, targets) = route("iris", &[&replica]).split(DeploymentId(1));
    let policy = |requires: &[&str]| {
        let requires = requires.iter().map(|name| (*name).to_owned()).collect();
        Entry::Endpoint { key: EndpointId(1), value: Some(Policy { requires, ..policy.clone() }) }
    };
    control.tell([policy(&["keys"]), Entry::Targets { key: DeploymentId(1), value: Some(targets) }]);
    let gateway = Gateway::start(&control).await;
    gateway.until_known("iris").await;
    for path in ["/v2/models/iris/infer", "/v2/models/md-1/versions/v1/infer", "/v1/models/iris:predict"] {
        let (code, _, text) = gateway.post(path, "{}").await;
        assert_eq!(code, 503, "{path}: {text}");
        assert!(text.contains("requires `keys`") && text.contains("upgrade the gateway"), "{text}");
    }
    let (code, _, _) = gateway.get("/v2/models/iris").await;
    assert_eq!(code, 503);
    assert!(replica.seen.lock().unwrap().is_empty(), "nothing reached the replica");
    control.tell([policy(&[])]);
    let served = async || gateway.post("/v2/models/iris/infer", "{}").await.0 == 200;
    eventually("it to be served", || async { if served().await { Ok(()) } else { Err(()) } }).await;
    gateway.stop().await;
}

#[tokio::test]
async fn what_a_replica_counts_is_told_by_the_one_that_answers() {
    let (one, two) = (Replica::start("a", Manner::Well).await, Replica::start("b", Manner::Well).await);
    let control = Control::start().await;
    control.set(1, Some(route("iris", &[&one, &two])));
    let gateway = Gateway::start(&control).await;
    gateway.until_known("md-1").await;
    let mut told = std::collections::BTreeSet::new();
    for _ in 0..4 {
        let (code, headers, text) = gateway.get("/v2/models/iris/stats").await;
        assert_eq!((code, text.ends_with("/v2/models/iris/stats 0")), (200, true), "{text}");
        told.insert(headers["x-modelway-replica"].clone());
    }
    assert_eq!(told.len(), 2);
    gateway.stop().await;
}

#[tokio::test]
async fn a_retry_keeps_the_revision_that_was_chosen_for_the_request() {
    let control = Control::start().await;
    let full = Replica::start("full", Manner::NotBegun).await;
    let (beside, other) = (Replica::start("beside", Manner::Well).await, Replica::start("other", Manner::Well).await);
    let both = vec![revision(1, "v1", 50, &[&full, &beside]), revision(2, "v2", 50, &[&other])];
    control.set(1, Some(Route { revisions: both, ..route("iris", &[]) }));
    let gateway = Gateway::start(&control).await;
    gateway.until_known("iris").await;
    let mut of_revision = [0_u32, 0];
    for _ in 0..40 {
        let (code, headers, text) = gateway.infer("iris").await;
        assert_eq!(code, 200, "{text}");
        let by_other = text.starts_with("other ");
        assert_eq!(headers["x-modelway-revision"], if by_other { "2" } else { "1" }, "{text}");
        of_revision[usize::from(by_other)] += 1;
    }
    assert!(
        full.requests.load(std::sync::atomic::Ordering::Relaxed) > 0,
        "some were offered to the full replica first"
    );
    let [one, two] = of_revision;
    assert!(one.abs_diff(two) <= 2, "its refusals move no request to the other revision: {one} and {two}");
    gateway.stop().await;
}

#[tokio::test]
async fn a_model_may_be_called_stats() {
    let (replica, control, gateway) = Gateway::simple(Manner::Well).await;
    assert_eq!(gateway.get("/v2/models/stats").await.0, 404, "there are no statistics of all models");
    control.set(2, Some(route("stats", &[&replica])));
    gateway.until_known("stats").await;
    assert_eq!(gateway.get("/v2/models/stats").await.2, "a /v2/models/stats 0");
    assert_eq!(gateway.get("/v2/models/stats/stats").await.2, "a /v2/models/stats/stats 0");
    gateway.stop().await;
}
