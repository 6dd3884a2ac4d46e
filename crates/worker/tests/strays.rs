//! Workers among replicas that are not theirs: another database's, or those of their own from before it was restored.

mod support;

use std::{collections::BTreeSet, fs, path::Path, time::Duration};

use api::{
    DeploymentId, Fence, ReplicaId, RevisionNumber, State, Timestamp,
    stray::{Stray, StrayReason},
};
use backend::{
    Backend, Replica,
    conformance::{fence_of, revision},
    fake,
};
use support::{Site, eventually, quick, spec};

const STRANGE: DeploymentId = DeploymentId(1);

fn immediate() -> fake::Config {
    fake::Config { drain_ms: 10, ..fake::Config::default() }
}

async fn strays(site: &Site, count: usize) -> Vec<Stray> {
    eventually(&format!("{count} strays to be known"), || async {
        let strays = site.store.stray_list().await.expect("strays");
        (strays.len() == count).then_some(strays)
    })
    .await
}

async fn started(site: &Site) -> Vec<(ReplicaId, Option<Timestamp>)> {
    let all = site.machine.observe_all().await.expect("observe_all");
    all.into_iter().map(|replica: Replica| (replica.id, replica.started_at)).collect()
}

/// Copies a database that nobody writes to, as a backup does.
fn copy(from: &Path, to: &Path) {
    for end in ["", "-wal", "-shm"] {
        let (from, to) = (format!("{}{end}", from.display()), format!("{}{end}", to.display()));
        let _ = fs::remove_file(&to);
        if Path::new(&from).exists() {
            fs::copy(from, to).expect("it is copied");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_empty_database_leaves_what_runs_alone_and_serves_beside_it() {
    let site = Site::new(immediate()).await;
    let other = fence_of("another database", 4_711);
    site.machine.ensure(&revision(STRANGE, RevisionNumber(1), "/models/other"), 2, &[], &other).await.expect("ensure");
    let theirs = started(&site).await;
    let worker = site.start(quick()).await;
    let known = strays(&site, 2).await;
    assert!(known.iter().all(|stray| stray.reason == StrayReason::OtherDatabase && !stray.ending), "{known:?}");
    eventually("an event for each of them", || async {
        (site.event_kinds(STRANGE).await == ["stray_found"; 2]).then_some(())
    })
    .await;

    let id = site.create(&spec("iris", 2)).await;
    assert_eq!(id, STRANGE, "the empty database gives the same number again");
    site.until(id, State::Active).await;
    let route = site.route(id).await.expect("a route");
    let routed: BTreeSet<_> = route.revisions[0].replicas.iter().map(|replica| replica.id.clone()).collect();
    assert_eq!(routed.len(), 2);
    assert!(theirs.iter().all(|(id, _)| !routed.contains(id)), "traffic goes to a stranger: {routed:?}");

    site.store.deployment_delete(id, None, site.now()).await.expect("delete");
    eventually("it to be forgotten", || async { site.record(id).await.is_none().then_some(()) }).await;
    assert_eq!(started(&site).await, theirs, "the others were touched");
    worker.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stray_is_ended_when_a_person_asks_and_no_other() {
    let site = Site::new(immediate()).await;
    let other = fence_of("another database", 1);
    site.machine.ensure(&revision(STRANGE, RevisionNumber(1), "/models/other"), 2, &[], &other).await.expect("ensure");
    let worker = site.start(quick()).await;
    let known = strays(&site, 2).await;
    let unknown = site.store.strays_end(&[known[0].replica.clone(), ReplicaId("md-9-r9-9".to_owned())]).await;
    assert!(unknown.is_err(), "one that nobody knows is refused, and nothing is ended");
    site.store.strays_end(&[known[0].replica.clone()]).await.expect("it is known");
    let left = strays(&site, 1).await;
    assert_eq!(left[0].replica, known[1].replica);
    assert_eq!(started(&site).await.len(), 1);
    worker.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stray_of_the_present_epoch_is_ended_when_a_person_asks_and_no_other() {
    let site = Site::new(immediate()).await;
    let id = site.create(&spec("iris", 2)).await;
    site.store.deployment_delete(id, None, site.now()).await.expect("delete");
    let lease = site.store.lease_acquire(id, "test", Duration::from_secs(60), site.now()).await.expect("the database");
    site.store.deployment_purge(&lease.expect("nobody holds it"), site.now()).await.expect("it is gone");
    // Long after, the database does not know any more that it had this deployment.
    site.store.prune(site.now().after(Duration::from_secs(40 * 24 * 3600))).await.expect("prune");
    assert!(!site.store.deployment_is_gone(id).await.expect("the database"));
    let epoch = site.store.lineage().await.expect("the database").current;
    let ours = fence_of(&epoch.0, 1);
    site.machine.ensure(&revision(id, RevisionNumber(1), "/models/iris"), 2, &[], &ours).await.expect("ensure");

    let worker = site.start(quick()).await;
    let known = strays(&site, 2).await;
    assert!(known.iter().all(|stray| stray.reason == StrayReason::UnknownDeployment), "{known:?}");
    site.store.strays_end(&[known[0].replica.clone()]).await.expect("it is known");
    let left = strays(&site, 1).await;
    assert_eq!(left[0].replica, known[1].replica);
    assert_eq!(started(&site).await.len(), 1);
    worker.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restored_database_goes_on_with_what_it_knows_and_confuses_nothing() {
    let mut site = Site::new(immediate()).await;
    let worker = site.start(quick()).await;
    let kept = site.create(&spec("kept", 1)).await;
    let changed = site.create(&spec("changed", 1)).await;
    for id in [kept, changed] {
        site.until(id, State::Active).await;
    }
    worker.stop().await;
    let file = site.folder.path().join("modelway.db");
    let backup = tempfile::tempdir().expect("a folder");
    copy(&file, &backup.path().join("modelway.db"));
    let before = site.machine.observe(kept).await.expect("observe");

    // What the backup will not know: a new deployment, and a new revision of an old one.
    let worker = site.start(quick()).await;
    let forgotten = site.create(&spec("forgotten", 1)).await;
    let mut newer = spec("changed", 1);
    newer.env.insert("COLOUR".to_owned(), "green".to_owned());
    site.replace(changed, &newer).await;
    site.until(forgotten, State::Active).await;
    eventually("revision 2 to serve alone", || async {
        let replicas = site.machine.observe(changed).await.expect("observe");
        (replicas.len() == 1 && replicas[0].revision == RevisionNumber(2)).then_some(())
    })
    .await;
    worker.stop().await;
    let lost: Vec<_> = started(&site).await.into_iter().filter(|(id, _)| *id != before[0].id).collect();
    assert_eq!(lost.len(), 2);

    copy(&backup.path().join("modelway.db"), &file);
    site.store = support::open(&site.folder).await;
    let old_epoch = site.store.lineage().await.expect("lineage").current;
    let worker = site.start(quick()).await;

    // The numbers are given again, for something else.
    let new = site.create(&spec("new", 1)).await;
    assert_eq!(new, forgotten);
    for id in [kept, changed, new] {
        site.until(id, State::Active).await;
    }
    let known = strays(&site, 2).await;
    let names: Vec<_> = known.iter().map(|stray| &stray.replica).collect();
    assert_eq!(names, lost.iter().map(|(id, _)| id).collect::<Vec<_>>(), "what the backup does not know is told of");
    let after = site.machine.observe(kept).await.expect("observe");
    assert_eq!((&after[0].id, after[0].started_at), (&before[0].id, before[0].started_at), "what it knows serves on");
    let lineage = site.store.lineage().await.expect("lineage");
    assert_eq!(lineage.former, [old_epoch], "the database goes on under a new name");
    let events = site.store.event_list(None, store::Order::OldestFirst, None, 1_000).await.expect("events").items;
    let told = events.iter().filter(|event| event.kind == "database_restored").count();
    assert_eq!(told, 1, "{events:#?}");
    for id in [changed, new] {
        let route = site.route(id).await.expect("a route");
        let mut routed = route.revisions.iter().flat_map(|revision| &revision.replicas);
        assert!(routed.all(|replica| lost.iter().all(|(id, _)| *id != replica.id)), "{route:?}");
    }

    // It can be changed from then on.
    site.replace(changed, &newer).await;
    let serves = || async {
        let record = site.record(changed).await?;
        (record.status.serving_revision == Some(RevisionNumber(2)) && record.status.state == State::Active)
            .then_some(())
    };
    eventually("revision 2 of the restored database to serve", serves).await;
    worker.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_fence_that_the_database_forgot_is_noticed_by_whoever_is_refused() {
    let site = Site::new(immediate()).await;
    let id = site.create(&spec("iris", 1)).await;
    let lineage = site.store.lineage().await.expect("lineage");
    let ahead = Fence { epoch: lineage.current, former: lineage.former, number: 900 };
    // As far as the machine knows, 900 fences of this database were given.
    site.machine.remove(id, None, &ahead).await.expect("remove");
    site.machine.ensure(&revision(id, RevisionNumber(1), "/models/iris"), 0, &[], &ahead).await.expect("ensure");
    let worker = site.start(quick()).await;
    site.until(id, State::Active).await;
    assert!(site.event_kinds(id).await.contains(&"database_restored".to_owned()));
    worker.stop().await;
}
