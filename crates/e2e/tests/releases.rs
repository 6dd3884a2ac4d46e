//! A newer binary over what a released one left behind.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking, also in its helpers")]

use modelway_e2e::{Modelway, Postgres, RELEASED, Release, Role, restore_sqlite, until};
use reqwest::Method;
use serde_json::{Map, Value, json};

/// Fields whose values depend on the moment, and words, which may change. Their types may not.
const VARYING: [&str; 16] = [
    "at",
    "created_at",
    "detail",
    "error",
    "evidence",
    "message",
    "notes",
    "ready_replicas",
    "replica_status",
    "serving_revision",
    "started_at",
    "status",
    "title",
    "updated_at",
    "url",
    "artifact",
];

/// What a client of the older version would miss in `new`: `path` says where it is.
fn missing(path: &str, old: &Value, new: &Value) -> Vec<String> {
    match (old, new) {
        (Value::Object(object), Value::Object(new)) => object
            .iter()
            .flat_map(|(name, old)| {
                let path = format!("{path}/{name}");
                let Some(new) = new.get(name) else { return vec![format!("{path} is gone")] };
                if is_event_id(name, object) {
                    return if new.is_number() { vec![] } else { vec![format!("{path} was {old} and is {new}")] };
                }
                if VARYING.contains(&name.as_str()) && !old.is_number() {
                    let same = old.is_null() || new.is_null() || kind(old) == kind(new);
                    return if same { vec![] } else { vec![format!("{path} was {old} and is {new}")] };
                }
                missing(&path, old, new)
            })
            .collect(),
        (Value::Array(old), Value::Array(new)) if old.len() <= new.len() => {
            let pairs = old.iter().zip(new).enumerate();
            pairs.flat_map(|(place, (old, new))| missing(&format!("{path}/{place}"), old, new)).collect()
        }
        _ if old == new => vec![],
        _ => vec![format!("{path} was {old} and is {new}")],
    }
}

/// Ids of events grow with time. Clients are promised numbers, in the order of the events.
fn is_event_id(name: &str, object: &Map<String, Value>) -> bool {
    match name {
        "id" => object.contains_key("actor"),
        "next" => object.get("items").is_some_and(|items| items[0].get("actor").is_some()),
        _ => false,
    }
}

fn kind(value: &Value) -> std::mem::Discriminant<Value> {
    std::mem::discriminant(value)
}

/// The models that the fixtures name.
fn make_models(modelway: &Modelway) {
    let models = modelway.models();
    let _ = (models.iris("iris"), models.broken("broken"));
}

#[tokio::test]
async fn what_clients_of_a_released_version_ask_is_answered_as_it_was() {
    for version in RELEASED {
        let mut modelway = Modelway::new();
        make_models(&modelway);
        modelway.start(Role::Up).await;
        for exchange in Release::of(version).exchanges(&modelway) {
            let answer = exchange.send(&modelway).await;
            let missing = missing("", exchange.recorded(), &answer);
            assert!(missing.is_empty(), "{version}: {missing:#?}\n{:#}\nnow: {answer:#}", exchange.0);
        }
    }
}

/// Starts over a database of `version`, and finds all of it.
async fn goes_on(version: &str, mut modelway: Modelway) {
    make_models(&modelway);
    modelway.start(Role::Up).await;
    for (id, name) in [(1, "iris"), (2, "by-name")] {
        modelway.until_active(id).await;
        modelway.until_predicts(name).await;
    }
    let url = |path: &str| modelway.control(&format!("/v1/modelDeployment/{path}"));
    let get = async |path: &str| modelway.ask(Method::GET, &url(path), Value::Null).await.body;
    until("what was idle and what failed is so again", || async {
        let (three, four) = (get("3").await, get("4").await);
        (&three["status"], &four["status"]) == (&json!("idle"), &json!("failed"))
    })
    .await;
    assert_eq!(get("5").await["status"], 404, "what was deleted stays so");

    let exchanges = Release::of(version).exchanges(&modelway);
    let revisions = exchanges.iter().find(|it| it.0["path"] == "/v1/modelDeployment/1/revisions").unwrap();
    let missing = missing("", revisions.recorded(), &revisions.send(&modelway).await);
    assert!(missing.is_empty(), "{version}: {missing:#?}");
    let one = get("1").await;
    assert_eq!((&one["labels"]["team"], &one["env"]["COLOUR"]), (&json!("garden"), &json!("blue")));
    let events = get("1/events").await;
    assert_eq!(events["items"][0]["kind"], "created");
    let scaled = modelway.ask(Method::PUT, &url("1/scale"), json!({"replicas": 2})).await;
    assert_eq!(scaled.status, 200, "{scaled:#?}");
    modelway.until_deployment(1, "two replicas", |d| d.status.ready_replicas == 2).await;
    let new = modelway.deploy("new", &modelway.models().iris("new"), 1).await;
    assert_eq!(new, 6, "ids go on");
    modelway.until_active(new).await;
    modelway.until_predicts("new").await;
}

#[tokio::test]
async fn a_database_of_a_released_version_is_served_on() {
    for version in RELEASED {
        let modelway = Modelway::new();
        let sql = Release::of(version).read("sqlite.sql", &modelway);
        restore_sqlite(&modelway.data_dir().join("modelway.db"), &sql);
        goes_on(version, modelway).await;
    }
}

#[tokio::test]
async fn a_postgresql_database_of_a_released_version_is_served_on() {
    for version in RELEASED {
        let postgres = Postgres::start();
        let mut modelway = Modelway::new();
        modelway.set("MODELWAY__STORE__URL", postgres.url());
        postgres.restore(&Release::of(version).read("postgres.sql", &modelway));
        goes_on(version, modelway).await;
    }
}

#[tokio::test]
async fn a_gateway_starts_from_the_route_table_that_a_released_version_saved() {
    for version in RELEASED {
        let mut modelway = Modelway::new();
        let table = Release::of(version).read("routes.json", &modelway);
        let file = modelway.data_dir().join("gateway/routes.json");
        std::fs::create_dir_all(file.parent().unwrap()).unwrap();
        std::fs::write(file, table).unwrap();
        modelway.start(Role::Gateway).await;
        let known = modelway.ask(Method::POST, &modelway.infer_url("iris"), modelway.iris_body()).await;
        assert_eq!(known.status, 503, "its replicas are gone, and it is known: {known:#?}");
        let unknown = modelway.ask(Method::POST, &modelway.infer_url("roses"), modelway.iris_body()).await;
        assert_eq!(unknown.status, 404, "{unknown:#?}");
    }
}
