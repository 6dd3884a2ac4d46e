use api::{DeploymentId, State, deployment::LogPayloads, route::form1::Route};

use super::*;

fn table() -> Table {
    let table = Table::new();
    let changes = (1..=3).flat_map(|id| {
        let route = Route {
            name: Some(format!("m{id}")),
            former: None,
            state: State::Pending,
            reason: Some("its model loads".to_owned()),
            revisions: Vec::new(),
            request_timeout_ms: 1,
            idempotent: false,
            log_payloads: LogPayloads::Sample,
        };
        let both = halves(RouteChange { version: id, deployment: DeploymentId(id), route: Some(route) });
        both.map(|entry| Change { version: id, entry })
    });
    table.apply(changes.collect(), 3, false);
    table
}

fn position() -> Position {
    Position { epoch: Some("e".to_owned()), version: 3 }
}

#[test]
fn a_table_comes_back_as_it_was_written() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("gateway/routes.json");
    write(&path, &table(), &position()).expect("written");
    let read = Table::new();
    assert_eq!(load(&path, &read), position());
    assert_eq!((read.endpoints(), read.version()), (3, 3));
    let route = |table: &Table| table.find("m2").map(|endpoint| (endpoint.to_policy(), endpoint.to_targets()));
    assert_eq!(route(&read), route(&table()));
    assert!(!beside(&path).exists());
}

#[test]
fn a_damaged_file_is_left_alone() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("routes.json");
    write(&path, &table(), &position()).expect("written");
    let whole = std::fs::read(&path).expect("read");
    for length in [0, 10, whole.len() / 2, whole.len() - 40] {
        std::fs::write(&path, &whole[..length]).expect("cut");
        let read = Table::new();
        assert_eq!(load(&path, &read), Position::default(), "cut at {length}");
        assert!(!read.holds() && read.endpoints() == 0);
    }
    std::fs::write(&path, [0xff; 64]).expect("spoilt");
    assert_eq!(load(&path, &Table::new()), Position::default());
    assert_eq!(load(&folder.path().join("none"), &Table::new()), Position::default());
}

#[test]
fn a_disk_that_refuses_leaves_the_old_table() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("routes.json");
    write(&path, &table(), &position()).expect("written");
    std::fs::create_dir(beside(&path)).expect("something in the way");
    write(&path, &Table::new(), &Position::default()).expect_err("it cannot be written");
    assert_eq!(load(&path, &Table::new()), position());
}

#[test]
fn what_is_refused_comes_back_refused_and_is_served_once_it_may_be() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("routes.json");
    let text = |requires: &str| {
        format!(
            r#"{{"form":2,"epoch":"e","version":3,"routes":2}}
{{"version":3,"kind":"endpoint","key":1,"value":{{"deployment":1,{requires}"request_timeout_ms":1,"idempotent":true,"log_payloads":"none"}}}}
{{"version":3,"kind":"targets","key":1,"value":{{"state":"active","revisions":[{{"number":1,"model_version":"v1","weight":1,"replicas":[{{"id":"a","address":"h:1"}}]}}]}}}}
"#
        )
    };
    std::fs::write(&path, text(r#""requires":["keys"],"#)).expect("written");
    let served = |table: &Table| table.find("md-1").expect("it is known").serves(None);
    let table = Table::new();
    assert_eq!(load(&path, &table), position());
    assert!(!served(&table));
    write(&path, &table, &position()).expect("written");
    let again = std::fs::read_to_string(&path).expect("read");
    assert!(again.contains(r#""requires":["keys"]"#) && again.contains(r#""id":"a""#), "{again}");
    // A gateway that is capable reads it so.
    std::fs::write(&path, again.replace(r#""requires":["keys"],"#, "")).expect("written");
    let table = Table::new();
    assert_eq!(load(&path, &table), position());
    assert!(served(&table));
}

#[test]
fn the_file_of_a_later_version_is_left_alone() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("routes.json");
    std::fs::write(&path, r#"{"form":3,"epoch":"e","version":3,"routes":0}"#).expect("written");
    let table = Table::new();
    assert_eq!(load(&path, &table), Position::default());
    assert!(!table.holds());
}
