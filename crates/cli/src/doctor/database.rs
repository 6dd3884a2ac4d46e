//! Checks the database and its workers.

use std::time::Duration;

use api::Timestamp;
use base::{Clock, error::chain};
use store::{Schema, Store};

use super::Check;
use crate::settings::Settings;

const NAME: &str = "database";
/// Timeout of the database.
const PATIENCE: Duration = Duration::from_secs(3);
/// Maximum clock difference.
const SKEW: Duration = Duration::from_secs(5);

pub(super) async fn checks(settings: &Settings) -> Vec<Check> {
    let schema = match Store::inspect(&settings.store.url, PATIENCE).await {
        Ok(schema) => schema,
        Err(error) => {
            return vec![Check::failed(NAME, chain(&error), "Its address is store.url; start it, or restore a backup")];
        }
    };
    match schema {
        None => vec![Check::ok(NAME, "there is none yet; `modelway up` makes it")],
        Some(Schema { found, known }) if found > known => {
            let detail = format!("its schema is {found}, but this version supports {known}");
            vec![Check::failed(NAME, detail, "Install the newer Modelway that wrote it")]
        }
        Some(Schema { found, known }) if found < known => {
            let detail = format!("its schema is {found}; this Modelway brings it to {known} when it starts");
            vec![Check::warning(NAME, detail, "Make a backup before you start this version")]
        }
        Some(Schema { found, .. }) => match Store::open(&settings.store.url, PATIENCE).await {
            Ok(store) => {
                let mut checks = vec![Check::ok(NAME, format!("it answers; its schema is {found}"))];
                checks.push(workers(&store, settings).await);
                checks.push(placements(&store, settings).await);
                checks.push(strays(&store).await);
                checks
            }
            Err(error) => vec![Check::failed(NAME, chain(&error), "Its address is store.url")],
        },
    }
}

async fn workers(store: &Store, settings: &Settings) -> Check {
    const NAME: &str = "workers";
    let now: Timestamp = Clock::system().now().into();
    let workers = match store.worker_list(Timestamp(0)).await {
        Ok(workers) => workers,
        Err(error) => return Check::failed(NAME, chain(&error), "See `database`"),
    };
    let seen = |seen_at: Timestamp| now.since(seen_at) <= Duration::from_millis(settings.control.worker_seen_ms);
    if let Some(worker) = workers.iter().find(|worker| worker.seen_at.since(now) > SKEW) {
        let ahead = worker.seen_at.since(now).as_secs();
        let detail = format!("the clock of {} is {ahead} s ahead of this machine's", worker.id);
        return Check::failed(NAME, detail, "Synchronise the clocks: leases depend on them");
    }
    let alive: Vec<_> = workers.iter().filter(|worker| seen(worker.seen_at)).collect();
    match (alive.as_slice(), workers.first()) {
        ([], None) => Check::warning(NAME, "none runs", "Start one: modelway up, or modelway worker"),
        ([], Some(last)) => {
            let ago = now.since(last.seen_at).as_secs();
            let detail = format!("none runs; the last one was seen {ago} s ago");
            Check::warning(NAME, detail, "Start one: modelway up, or modelway worker")
        }
        (alive, _) => {
            let words: Vec<_> = alive
                .iter()
                .map(|worker| {
                    let ago = now.since(worker.seen_at).as_secs();
                    format!("{} (placement {}) seen {ago} s ago", worker.id, worker.placement)
                })
                .collect();
            Check::ok(NAME, words.join(", "))
        }
    }
}

async fn placements(store: &Store, settings: &Settings) -> Check {
    const NAME: &str = "placements";
    let now: Timestamp = Clock::system().now().into();
    let (counts, workers) = match (store.placement_count().await, store.worker_list(Timestamp(0)).await) {
        (Ok(counts), Ok(workers)) => (counts, workers),
        (Err(error), _) | (_, Err(error)) => return Check::failed(NAME, chain(&error), "See `database`"),
    };
    let lately = Duration::from_millis(settings.control.worker_seen_ms);
    let is_served = |placement: &str| {
        workers.iter().any(|worker| worker.placement == placement && now.since(worker.seen_at) <= lately)
    };
    let unserved: Vec<_> = counts
        .iter()
        .filter(|(placement, _)| !is_served(placement))
        .map(|(placement, count)| format!("{placement} ({count} deployments)"))
        .collect();
    if unserved.is_empty() {
        return Check::ok(NAME, "workers serve the placements of all deployments");
    }
    let detail = format!("no worker serves {}", unserved.join(", "));
    Check::warning(NAME, detail, "Start a worker there: modelway worker --placement NAME")
}

async fn strays(store: &Store) -> Check {
    const NAME: &str = "stray replicas";
    match store.stray_list().await {
        Ok(strays) if strays.is_empty() => Check::ok(NAME, "every replica belongs to this database"),
        Ok(strays) => {
            let detail = format!("{} run that belong to another database or placement", strays.len());
            Check::warning(NAME, detail, "See which: modelway strays")
        }
        Err(error) => Check::failed(NAME, chain(&error), "See `database`"),
    }
}
