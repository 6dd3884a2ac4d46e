//! Workers of several placements on one database: each works on its own deployments and touches nothing else.

mod support;

use std::{sync::Arc, time::Duration};

use api::{DeploymentSpec, State, stray::StrayReason};
use backend::{
    Backend,
    fake::{self, FakeBackend},
};
use base::Tasks;
use modelway_worker::{Config, WorkerError};
use support::{Running, Site, eventually, quick, spec};

fn immediate() -> fake::Config {
    fake::Config { drain_ms: 10, ..fake::Config::default() }
}

fn placed(name: &str, placement: &str) -> DeploymentSpec {
    DeploymentSpec { placement: Some(placement.to_owned()), ..spec(name, 2) }
}

fn east() -> Config {
    Config { placement: "east".to_owned(), ..quick() }
}

/// Another machine, at which nothing runs.
fn other_machine(site: &Site) -> FakeBackend {
    FakeBackend::new(immediate(), Tasks::new(), site.clock.clone()).in_scope("fake:east")
}

async fn start(site: &Site, config: Config, machine: &FakeBackend) -> Running {
    site.start_over(config, Arc::new(machine.clone())).await
}

async fn count(machine: &FakeBackend) -> usize {
    machine.observe_all().await.expect("observe_all").len()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_worker_runs_the_deployments_of_its_placement_and_no_other() {
    let site = Site::new(immediate()).await;
    let far = other_machine(&site);
    let here = site.start(quick()).await;
    let there = start(&site, east(), &far).await;
    let one = site.create(&spec("one", 2)).await;
    let two = site.create(&placed("two", "east")).await;
    let three = site.create(&placed("three", "west")).await;
    for id in [one, two] {
        site.until(id, State::Active).await;
        assert_eq!(site.route(id).await.expect("a route").revisions[0].replicas.len(), 2);
    }
    assert_eq!(site.machine.observe(one).await.expect("observe").len(), 2);
    assert_eq!(far.observe(two).await.expect("observe").len(), 2);
    assert_eq!((count(&site.machine).await, count(&far).await), (2, 2));

    // A change and a crash are the business of the same workers.
    site.replace(two, &DeploymentSpec { replicas: 3, ..spec("two", 2) }).await;
    assert!(far.crash(&far.observe(two).await.expect("observe")[0].id));
    eventually("3 replicas there", || async {
        let record = site.record(two).await?;
        (record.status.ready_replicas == 3 && record.status.state == State::Active).then_some(())
    })
    .await;
    site.store.deployment_delete(two, None, site.now()).await.expect("delete");
    eventually("it to be gone", || async { site.record(two).await.is_none().then_some(()) }).await;
    assert_eq!((count(&site.machine).await, count(&far).await), (2, 0));
    let waiting = site.record(three).await.expect("it waits for a worker").status;
    assert_eq!((waiting.state, waiting.ready_replicas), (State::Pending, 0));
    assert_eq!(site.store.stray_list().await.expect("strays"), []);
    here.stop().await;
    there.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn replicas_of_another_placement_are_reported_and_ended_only_when_a_person_asks() {
    let site = Site::new(immediate()).await;
    let before = site.start(quick()).await;
    let id = site.create(&spec("iris", 2)).await;
    site.until(id, State::Active).await;
    before.stop().await;

    // The worker of this machine has another placement from now on.
    let renamed = site.start(east()).await;
    let strays = |count: usize| {
        let site = &site;
        async move {
            eventually("the strays", || async {
                let strays = site.store.stray_list().await.expect("strays");
                (strays.len() == count).then_some(strays)
            })
            .await
        }
    };
    let known = strays(2).await;
    assert!(known.iter().all(|stray| stray.reason == StrayReason::OtherPlacement && !stray.ending), "{known:?}");
    assert_eq!(count(&site.machine).await, 2, "they serve on");
    site.store.strays_end(&[known[0].replica.clone()]).await.expect("it is known");
    assert_eq!(strays(1).await[0].replica, known[1].replica);
    renamed.stop().await;

    // What is left is its own again.
    let after = site.start(quick()).await;
    assert_eq!(strays(0).await, []);
    site.until(id, State::Active).await;
    assert!(site.machine.observe(id).await.expect("observe").iter().any(|it| it.id == known[1].replica));
    after.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn workers_of_two_placements_do_not_share_a_machine() {
    let site = Site::new(immediate()).await;
    let here = site.start(Config { forget_after_ms: 60_000, ..quick() }).await;
    eventually("the first one to sign on", || async {
        let workers = site.store.worker_list(api::Timestamp(0)).await.expect("workers");
        workers.iter().any(|worker| worker.placement == "local").then_some(())
    })
    .await;
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let run = modelway_worker::run(
        Config { forget_after_ms: 60_000, ..east() },
        site.store.clone(),
        site.store.wake_ups(),
        Arc::new(site.machine.clone()),
        listener,
        Tasks::new(),
        site.clock.clone(),
    );
    let refused = tokio::time::timeout(Duration::from_secs(20), run).await.expect("it refuses");
    let Err(WorkerError::OtherScope(reason)) = refused else { panic!("{refused:?}") };
    assert!(reason.contains("`local`") && reason.contains("`east`"), "{reason}");
    here.stop().await;
}
