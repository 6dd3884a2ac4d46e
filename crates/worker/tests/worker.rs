//! Workers at work: a real database, a pretended machine.

mod support;

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use api::{DeploymentSpec, ReplicaId, RevisionNumber, State, Timestamp};
use backend::{
    Backend, BackendError,
    conformance::revision,
    fake::{self, CRASH, INVALID},
};
use base::serve::conformance::{Subject, suite};
use modelway_worker::{Config, WorkerError};
use store::WorkerRecord;
use support::{PATIENCE, Site, around::Hard, behaving, eventually, lose_every_task, open, quick, spec, within};

/// No scan comes in time to help.
fn unscanned() -> Config {
    Config { scan_interval_ms: 3_600_000, ..quick() }
}

fn taking(ready_after_ms: u64) -> fake::Config {
    fake::Config { ready_after_ms, drain_ms: 10, ..fake::Config::default() }
}

fn green(mut spec: DeploymentSpec) -> DeploymentSpec {
    spec.env.insert("COLOUR".to_owned(), "green".to_owned());
    spec
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_deployment_becomes_active_without_waiting_for_a_scan() {
    let site = Site::new(taking(5)).await;
    let worker = site.start(unscanned()).await;
    let id = site.create(&spec("iris", 2)).await;
    let record = site.until(id, State::Active).await;
    assert_eq!((record.status.ready_replicas, record.status.serving_revision), (2, Some(RevisionNumber(1))));
    let route = site.route(id).await.expect("a route");
    assert_eq!((route.revisions[0].replicas.len(), route.revisions[0].model_version.as_str()), (2, "v1"));
    assert!(site.event_kinds(id).await.contains(&"active".to_owned()));
    worker.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_workers_never_start_a_replica_twice() {
    let site = Site::new(taking(3)).await;
    let one = site.start(quick()).await;
    let two = site.start(quick()).await;
    let mut ids = Vec::new();
    for n in 0..30 {
        ids.push(site.create(&spec(&format!("m{n}"), 2)).await);
    }
    for id in &ids {
        site.until(*id, State::Active).await;
    }
    assert_eq!(site.machine.starts(), 60);
    one.stop().await;
    two.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_dead_worker_held_is_taken_over_and_its_fence_is_refused() {
    let site = Site::new(taking(0)).await;
    let id = site.create(&spec("iris", 1)).await;
    for _ in 0..20 {
        let earlier = site.store.lease_acquire(id, "earlier", PATIENCE, site.now()).await.expect("lease");
        site.store.lease_release(&earlier.expect("it is free")).await.expect("release");
    }
    let hold = Duration::from_millis(300);
    let dead = site.store.lease_acquire(id, "dead", hold, site.now()).await.expect("lease").expect("it is free");
    let worker = site.start(quick()).await;
    site.until(id, State::Active).await;
    let late = site.store.lineage().await.expect("lineage").fence(&dead);
    let late = site.machine.ensure(&revision(id, RevisionNumber(1), "/models/iris"), 5, &[], &late).await;
    assert!(matches!(late, Err(BackendError::Fenced { .. })), "{late:?}");
    assert_eq!(site.replicas(id).await, 1);
    worker.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lease_is_renewed_while_the_work_takes_longer_than_it() {
    let site = Site::new(taking(0)).await;
    let config = Config { lease_ms: 1_500, ..quick() };
    let hard = Hard { machine: site.machine.clone(), takes: Duration::from_millis(3_500), refuses: 0.into() };
    let slow = site.start_over(config, Arc::new(hard)).await;
    let id = site.create(&spec("iris", 1)).await;
    let taken = || async {
        let brief = Duration::from_millis(1);
        let lease = site.store.lease_acquire(id, "other", brief, site.now()).await.expect("lease");
        lease.is_none().then_some(())
    };
    eventually("the slow worker to take the lease", taken).await;
    eventually("the slow worker to let go of it", || async { taken().await.is_none().then_some(()) }).await;
    let record = site.record(id).await.expect("a record");
    assert_eq!(record.status.state, State::Active, "the lease was free before the work was done");
    slow.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn during_a_rolling_change_something_always_serves() {
    let site = Site::new(taking(30)).await;
    let worker = site.start(quick()).await;
    let id = site.create(&spec("iris", 2)).await;
    site.until(id, State::Active).await;

    site.replace(id, &green(spec("iris", 2))).await;
    let mut served = Vec::new();
    let changing = async {
        loop {
            let route = site.route(id).await.expect("a route");
            assert!(!route.revisions.is_empty(), "nothing serves during a rolling change: {route:?}");
            let known = site.machine.observe(id).await.expect("observe");
            let is_there = |id: &ReplicaId| known.iter().any(|replica| &replica.id == id);
            let names_the_gone = !route.revisions[0].replicas.iter().all(|replica| is_there(&replica.id));
            assert!(!names_the_gone || site.route(id).await != Some(route.clone()), "{route:?} but {known:?}");
            served.extend(route.revisions.iter().map(|revision| revision.number.0));
            if site.replicas(id).await == 2 && served.last() == Some(&2) {
                break;
            }
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    within("the change to be complete", changing).await;
    served.dedup();
    assert_eq!(served, [1, 2], "traffic moves once");
    assert_eq!(site.machine.starts(), 4);
    assert!(site.event_kinds(id).await.contains(&"traffic_moved".to_owned()));
    worker.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_change_that_cannot_run_leaves_the_old_revision_serving() {
    let site = Site::new(taking(1)).await;
    let worker = site.start(quick()).await;
    let id = site.create(&spec("iris", 1)).await;
    site.until(id, State::Active).await;
    site.replace(id, &behaving(spec("iris", 1), INVALID)).await;
    // Between the change and the first look at it, it is degraded as well, and nobody knows why yet.
    let known = || async { site.record(id).await?.status.error };
    let error = eventually("the reason", known).await;
    let record = site.until(id, State::Degraded).await;
    assert_eq!(record.status.serving_revision, Some(RevisionNumber(1)));
    assert_eq!((error.code.as_str(), error.revision), ("model_invalid", RevisionNumber(2)));
    assert!(!error.log.is_empty());
    assert_eq!(site.route(id).await.expect("a route").revisions[0].number, RevisionNumber(1));

    site.replace(id, &spec("iris", 1)).await;
    let record = site.until(id, State::Active).await;
    assert_eq!(record.status.error, None);
    worker.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_crash_loop_fails_and_a_mended_deployment_serves() {
    let site = Site::new(taking(1)).await;
    let worker = site.start(quick()).await;
    let id = site.create(&behaving(spec("iris", 1), CRASH)).await;
    let record = site.until(id, State::Failed).await;
    let error = record.status.error.expect("it says why");
    assert_eq!(error.code, "crash_loop");
    assert!(!error.log.is_empty());
    assert!(site.route(id).await.expect("a route").reason.is_some_and(|reason| reason.contains("exited")));
    site.replace(id, &spec("iris", 1)).await;
    site.until(id, State::Active).await;
    eventually("only the mended replica", || async { (site.replicas(id).await == 1).then_some(()) }).await;
    worker.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replica_that_crashes_comes_back() {
    let site = Site::new(taking(5)).await;
    let worker = site.start(unscanned()).await;
    let id = site.create(&spec("iris", 2)).await;
    let record = site.until(id, State::Active).await;
    assert!(site.machine.crash(&record.status.replica_status[1].id));
    site.until(id, State::Degraded).await;
    site.until(id, State::Active).await;
    assert_eq!(site.machine.starts(), 3);
    worker.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_deleted_deployment_drains_and_is_forgotten() {
    let site = Site::new(taking(1)).await;
    let worker = site.start(unscanned()).await;
    let id = site.create(&spec("iris", 2)).await;
    site.until(id, State::Active).await;
    site.store.deployment_delete(id, None, site.now()).await.expect("delete");
    eventually("it to be forgotten", || async { site.record(id).await.is_none().then_some(()) }).await;
    assert_eq!(site.replicas(id).await, 0);
    assert_eq!(site.route(id).await, None);
    worker.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn scaling_to_zero_is_idle_and_back_is_active() {
    let site = Site::new(taking(1)).await;
    let worker = site.start(unscanned()).await;
    let id = site.create(&spec("iris", 2)).await;
    site.until(id, State::Active).await;
    site.replace(id, &spec("iris", 0)).await;
    site.until(id, State::Idle).await;
    eventually("its replicas to end", || async { (site.replicas(id).await == 0).then_some(()) }).await;
    site.replace(id, &spec("iris", 3)).await;
    let record = site.until(id, State::Active).await;
    assert_eq!((record.status.ready_replicas, record.revision), (3, RevisionNumber(1)));
    worker.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_worker_that_ends_leaves_its_replicas_to_the_next_one() {
    let site = Site::new(taking(1)).await;
    let first = site.start(quick()).await;
    let id = site.create(&spec("iris", 2)).await;
    let before = site.until(id, State::Active).await.status.replica_status;
    first.stop().await;
    assert_eq!(site.replicas(id).await, 2);
    assert!(site.machine.crash(&before[0].id), "nobody is there to see it");
    let second = site.start(quick()).await;
    let mended = || async {
        let status = site.record(id).await?.status;
        (status.state == State::Active && status.replica_status[0].restarts == 1).then_some(status.replica_status)
    };
    let after = eventually("both to be ready again", mended).await;
    assert_eq!(after[1], before[1], "the one that ran was left alone");
    assert_eq!(site.machine.starts(), 3);
    second.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_queue_that_loses_everything_costs_only_time() {
    let site = Site::new(taking(1)).await;
    lose_every_task(&site.folder).await;
    let store = open(&site.folder).await;
    let config = Config { scan_interval_ms: 30, ..quick() };
    let worker = site.start_with(config, store, Arc::new(site.machine.clone())).await;
    let id = site.create(&spec("iris", 2)).await;
    let record = site.until(id, State::Active).await;
    assert!(site.machine.crash(&record.status.replica_status[0].id));
    eventually("the crash to be mended", || async { (site.machine.starts() == 3).then_some(()) }).await;
    site.until(id, State::Active).await;
    site.replace(id, &green(spec("iris", 2))).await;
    let changed = || async {
        let record = site.record(id).await?;
        (record.status.serving_revision == Some(RevisionNumber(2))).then_some(())
    };
    eventually("the change", changed).await;
    site.store.deployment_delete(id, None, site.now()).await.expect("delete");
    eventually("it to be forgotten", || async { site.record(id).await.is_none().then_some(()) }).await;
    worker.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_backend_that_fails_is_tried_again() {
    let site = Site::new(taking(0)).await;
    let hard = Hard { machine: site.machine.clone(), takes: Duration::ZERO, refuses: 3.into() };
    let worker = site.start_over(unscanned(), Arc::new(hard)).await;
    let id = site.create(&spec("iris", 1)).await;
    site.until(id, State::Active).await;
    worker.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_backend_that_keeps_failing_is_in_the_status_until_it_heals() {
    let site = Site::new(taking(0)).await;
    let hard = Arc::new(Hard { machine: site.machine.clone(), takes: Duration::ZERO, refuses: u32::MAX.into() });
    let worker = site.start_over(quick(), hard.clone()).await;
    let id = site.create(&spec("iris", 1)).await;
    let said = || async { site.record(id).await.and_then(|record| record.status.error) };
    let error = eventually("the status to say why", said).await;
    assert_eq!((error.code.as_str(), error.revision), ("backend_unavailable", RevisionNumber(1)));
    assert!(error.message.contains("not now"), "the cause is named: {}", error.message);

    hard.refuses.store(0, std::sync::atomic::Ordering::SeqCst);
    let record = site.until(id, State::Active).await;
    assert_eq!(record.status.error, None);
    worker.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_worker_of_another_scope_refuses_to_start() {
    let site = Site::new(taking(0)).await;
    let other = WorkerRecord {
        id: "elsewhere".into(),
        placement: "local".into(),
        scope: "process:elsewhere".into(),
        address: "127.0.0.1:1".into(),
        seen_at: site.now(),
    };
    site.store.worker_seen(&other, Duration::from_mins(1)).await.expect("seen");
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let run = modelway_worker::run(
        Config { forget_after_ms: 60_000, ..quick() },
        site.store.clone(),
        site.store.wake_ups(),
        Arc::new(site.machine.clone()),
        listener,
        base::Tasks::new(),
        site.clock.clone(),
    );
    let refused = within("the refusal", run).await;
    assert!(matches!(refused, Err(WorkerError::OtherScope(_))), "{refused:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_worker_signs_on_and_off() {
    let site = Site::new(taking(0)).await;
    let worker = site.start(quick()).await;
    let signed_on = || async {
        let workers = site.store.worker_list(Timestamp(0)).await.expect("workers");
        workers.into_iter().find(|record| record.address == worker.addr)
    };
    let record = eventually("the worker to sign on", signed_on).await;
    assert_eq!(record.scope, "fake");
    worker.stop().await;
    assert_eq!(site.store.worker_list(Timestamp(0)).await.expect("workers"), []);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_worker_shows_logs_health_and_metrics() {
    let site = Site::new(taking(0)).await;
    let worker = site.start(quick()).await;
    let id = site.create(&spec("iris", 2)).await;
    site.until(id, State::Active).await;
    let ready = || async { get(&worker.addr, "/health/ready").await.starts_with("HTTP/1.1 200").then_some(()) };
    eventually("the worker to be ready", ready).await;
    assert!(get(&worker.addr, "/health/live").await.starts_with("HTTP/1.1 200"));

    let log = get(&worker.addr, &format!("/v1/deployments/{id}/logs?tail=1")).await;
    let lines: BTreeSet<&str> = log.lines().filter(|line| line.contains(" | ")).collect();
    assert_eq!(lines.len(), 2, "one line of each replica: {log}");
    assert!(lines.iter().all(|line| line.starts_with(&format!("{id}-r1-"))), "{lines:?}");
    let log = get(&worker.addr, &format!("/v1/replicas/{id}-r1-0/logs")).await;
    assert!(log.contains("starting\n") && !log.contains(" | "), "{log}");
    assert!(get(&worker.addr, "/v1/replicas/nobody/logs").await.starts_with("HTTP/1.1 404"));
    assert!(get(&worker.addr, "/v1/deployments/99/logs").await.starts_with("HTTP/1.1 404"));

    let metrics = get(&worker.addr, "/metrics").await;
    assert!(metrics.contains(r#"modelway_worker_reconciles_total{outcome="settled"}"#), "{metrics}");
    assert!(metrics.contains("modelway_worker_scans_total"), "{metrics}");
    worker.stop().await;
}

/// One request over a connection of its own; the whole answer.
async fn get(addr: &str, path: &str) -> String {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let exchange = async {
        let mut stream = tokio::net::TcpStream::connect(addr).await?;
        let request = format!("GET {path} HTTP/1.1\r\nhost: {addr}\r\nconnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await?;
        std::io::Result::Ok(answer)
    };
    tokio::time::timeout(PATIENCE, exchange).await.expect("an answer in time").expect("an answer")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_worker_has_the_database_forget_what_is_old() {
    let site = Site::new(taking(1)).await;
    let worker = site.start(Config { prune_interval_ms: 20, ..quick() }).await;
    let long_ago = Timestamp(site.now().0 - 90 * 24 * 3_600 * 1_000_000);
    let id = site.store.deployment_create(&spec("old", 0), None, long_ago).await.expect("create").id;
    site.until(id, State::Idle).await;
    site.store.deployment_delete(id, None, long_ago).await.expect("delete");
    eventually("it to be gone", || async { site.record(id).await.is_none().then_some(()) }).await;
    assert_eq!(site.event_kinds(id).await.last().map(String::as_str), Some("deleted"), "it is not old yet");

    let other = site.store.deployment_create(&spec("older", 0), None, long_ago).await.expect("create").id;
    worker.stop().await;
    site.store.deployment_delete(other, None, long_ago).await.expect("delete");
    let lease = site.store.lease_acquire(other, "test", PATIENCE, long_ago).await.expect("the database");
    site.store.deployment_purge(&lease.expect("nobody holds it"), long_ago).await.expect("purge");
    let worker = site.start(Config { prune_interval_ms: 20, ..quick() }).await;
    eventually("its events to go", || async { site.event_kinds(other).await.is_empty().then_some(()) }).await;
    assert!(!site.event_kinds(id).await.is_empty());
    worker.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn its_listener_does_what_every_listener_does() {
    base::net::raise_open_files().expect("a limit");
    let site = Site::new(taking(0)).await;
    let worker = site.start(unscanned()).await;
    let address = worker.addr.parse().expect("an address");
    // The worker's own bounds, which nobody can set.
    suite(Subject { address, connections: 1_024, path: "/health/live" }).await;
    worker.stop().await;
}
