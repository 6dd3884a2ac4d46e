//! Two workers, one of which is killed again and again, while users change everything at random.

mod support;

use std::{collections::BTreeSet, time::Duration};

use api::{DeploymentId, ReplicaId, State, replica::ReplicaState, route::form1::RouteChange};
use backend::{Backend, fake};
use base::Tasks;
use modelway_worker::Config;
use rand::{Rng, SeedableRng, rngs::StdRng};
use support::{Site, eventually, open, quick, spec};
use tokio::{net::TcpListener, runtime::Runtime};

const ROUNDS: u32 = 150;

fn config() -> Config {
    // The longer wait for the gateways leaves time to look at a route and at what runs.
    Config { lease_ms: 300, route_settle_ms: 150, ..quick() }
}

/// A worker on threads of its own, so that it can be ended in the middle of anything.
struct Mortal(Option<Runtime>);

impl Mortal {
    fn start(site: &Site, store: store::Store) -> Self {
        let runtime = Runtime::new().expect("threads");
        let (machine, clock) = (site.machine.clone(), site.clock.clone());
        runtime.spawn(async move {
            let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
            let wake_ups = store.wake_ups();
            let machine = std::sync::Arc::new(machine);
            modelway_worker::run(config(), store, wake_ups, machine, listener, Tasks::new(), clock).await
        });
        Self(Some(runtime))
    }

    fn kill(&mut self) {
        if let Some(runtime) = self.0.take() {
            runtime.shutdown_background();
        }
    }
}

impl Drop for Mortal {
    fn drop(&mut self) {
        self.kill();
    }
}

async fn routes(site: &Site) -> (i64, Vec<RouteChange>) {
    let page = site.store.route_changes(0, 10_000).await.expect("routes");
    (page.version, page.whole_routes())
}

/// No route names a replica that was told to end, but for one that crashed before: there was nothing to drain.
async fn check_routes(site: &Site, crashed: &BTreeSet<ReplicaId>) {
    let (version, changes) = routes(site).await;
    let known: BTreeSet<_> =
        site.machine.observe_all().await.expect("observe").into_iter().map(|replica| replica.id).collect();
    if routes(site).await.0 != version {
        return;
    }
    for route in changes.iter().filter_map(|change| change.route.as_ref()) {
        for replica in route.revisions.iter().flat_map(|revision| &revision.replicas) {
            let true_route = known.contains(&replica.id) || crashed.contains(&replica.id);
            assert!(true_route, "the route names {}, which was ended", replica.id);
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whatever_users_do_and_whichever_worker_dies_it_ends_as_wanted() {
    let seed: u64 = rand::random();
    println!("seed {seed}");
    let mut chance = StdRng::seed_from_u64(seed);
    let site = Site::new(fake::Config::default()).await;
    let steady = site.start(config()).await;
    let mut mortal = Mortal::start(&site, open(&site.folder).await);

    let mut crashed = BTreeSet::new();
    let mut specs = Vec::new();
    for n in 0..6 {
        let spec = spec(&format!("m{n}"), chance.random_range(0..3));
        specs.push((site.create(&spec).await, spec));
    }
    for round in 0..ROUNDS {
        let which = chance.random_range(0..specs.len());
        let (id, spec) = &mut specs[which];
        match chance.random_range(0..10) {
            0..3 => {
                spec.env.insert("COLOUR".to_owned(), chance.random_range(0..1_000).to_string());
                site.replace(*id, spec).await;
            }
            3..6 => {
                spec.replicas = chance.random_range(0..4);
                site.replace(*id, spec).await;
            }
            6..9 => {
                let replicas = site.machine.observe(*id).await.expect("observe");
                if let Some(replica) = replicas.get(chance.random_range(0..4)) {
                    crashed.insert(replica.id.clone());
                    let _ = site.machine.crash(&replica.id);
                }
            }
            _ => {
                site.store.deployment_delete(*id, None, site.now()).await.expect("delete");
                *id = site.create(spec).await;
            }
        }
        if round % 15 == 14 {
            mortal.kill();
            mortal = Mortal::start(&site, open(&site.folder).await);
        }
        check_routes(&site, &crashed).await;
        tokio::time::sleep(Duration::from_millis(chance.random_range(0..20))).await;
    }

    for (id, spec) in &specs {
        let as_wanted = || async {
            check_routes(&site, &crashed).await;
            let record = site.record(*id).await?;
            let running = site.machine.observe(*id).await.expect("observe");
            let right = running.iter().all(|r| r.revision == record.revision && r.state == ReplicaState::Ready);
            let state = if spec.replicas == 0 { State::Idle } else { State::Active };
            (right && running.len() == spec.replicas as usize && record.status.state == state).then_some(())
        };
        eventually(&format!("{id} to be as wanted (seed {seed})"), as_wanted).await;
    }
    let wanted: BTreeSet<DeploymentId> = specs.iter().map(|(id, _)| *id).collect();
    let only_wanted = || async {
        let all = site.machine.observe_all().await.expect("observe");
        all.iter().all(|replica| wanted.contains(&replica.deployment)).then_some(())
    };
    eventually("what was deleted to be gone", only_wanted).await;
    steady.stop().await;
    mortal.kill();
}
