//! `up`: every role in one process, over the same HTTP as apart.

use std::{
    process::ExitCode,
    sync::Arc,
    time::{Duration, Instant},
};

use backend::Backend;
use base::{Clock, Tasks, config::Loaded};
use tokio::net::TcpListener;

use super::{
    FEW_THREADS, Running, Signals, address, at_once, listen, lock::Hold, loopback, make_folder, open_backend,
    open_store, run_worker, with_runtime,
};
use crate::{
    exit::{Failure, chain},
    output::{print, tell},
    settings::Settings,
};

/// All of an orderly end, replicas included.
const END: Duration = Duration::from_millis(9_500);
/// What of it is kept for the replicas, however long requests in flight take.
const REPLICAS_END: Duration = Duration::from_secs(3);
/// The longest that the worker's passes in hand may take.
const WORKER_END: Duration = Duration::from_secs(2);
/// How long the gateway may take to learn the first routes before the URLs are said anyway.
const FIRST_ROUTES: Duration = Duration::from_secs(10);

/// What was bound before anything else was done.
struct Listeners {
    gateway: TcpListener,
    control: TcpListener,
    worker: TcpListener,
}

/// Everything at work.
struct Up {
    gateway: Running,
    control: Running,
    worker: Running,
    backend: Arc<dyn Backend>,
    backend_tasks: Tasks,
    /// Given back last: until then nobody else may touch the folder.
    hold: Hold,
}

/// Runs all roles until a signal, or until one of them fails.
///
/// # Errors
/// A folder, an address or a database that cannot be used, or whatever ends a role early.
pub fn up(loaded: &Loaded<Settings>) -> Result<ExitCode, Failure> {
    with_runtime(&loaded.settings, FEW_THREADS, Box::pin(run(loaded)))
}

async fn run(loaded: &Loaded<Settings>) -> Result<ExitCode, Failure> {
    let mut signals = Signals::listen()?;
    let mut up = tokio::select! {
        started = start(loaded) => started?,
        // Replicas of an earlier life may run already; the next start finds them.
        () = signals.next() => return Ok(ExitCode::SUCCESS),
    };
    let failure = tokio::select! {
        failure = up.gateway.fails() => Some(failure),
        failure = up.control.fails() => Some(failure),
        failure = up.worker.fails() => Some(failure),
        () = signals.next() => None,
    };
    let backend = Arc::clone(&up.backend);
    tokio::select! {
        () = up.end() => failure.map_or(Ok(ExitCode::SUCCESS), Err),
        () = signals.next() => {
            if let Err(error) = backend.shutdown(Duration::ZERO).await {
                tell(format!("replicas may be left: {}", chain(&error)));
            }
            Err(at_once())
        }
    }
}

async fn start(loaded: &Loaded<Settings>) -> Result<Up, Failure> {
    let settings = &loaded.settings;
    loopback(&settings.gateway.addr, "gateway.addr (--gateway-addr)", settings)?;
    loopback(&settings.control.addr, "control.addr (--control-addr)", settings)?;
    make_folder(&settings.data_dir)?;
    let mut hold = Hold::take(&settings.data_dir)?;
    let listeners = Listeners {
        gateway: listen(&settings.gateway.addr, "gateway.addr (--gateway-addr)").await?,
        control: listen(&settings.control.addr, "control.addr (--control-addr)").await?,
        worker: listen(&settings.worker.addr, "worker.addr (--set worker.addr=…)").await?,
    };
    let gateway_url = format!("http://{}", address(&listeners.gateway)?);
    let control_url = format!("http://{}", address(&listeners.control)?);
    hold.say(&format!(", gateway {gateway_url}, control plane {control_url}"))?;
    let store = open_store(settings).await?;
    let backend_tasks = Tasks::new();
    let backend = open_backend(loaded, &backend_tasks).await?;
    let settings = with_addresses(loaded, &gateway_url, &control_url);
    let up = compose(settings, listeners, store, (backend, backend_tasks), hold);
    until_routed(&gateway_url).await;
    print(welcome(&gateway_url, &control_url))?;
    Ok(up)
}

/// The settings with the ports that were really taken, where nobody wrote a URL.
fn with_addresses(loaded: &Loaded<Settings>, gateway_url: &str, control_url: &str) -> Settings {
    let mut settings = loaded.settings.clone();
    let derived = |key| loaded.source(key).is_none_or(|source| source.starts_with("default"));
    if derived("control.gateway_url") {
        gateway_url.clone_into(&mut settings.control.gateway_url);
    }
    if derived("gateway.control_url") {
        control_url.clone_into(&mut settings.gateway.control_url);
    }
    settings
}

fn compose(
    settings: Settings,
    listeners: Listeners,
    store: store::Store,
    (backend, backend_tasks): (Arc<dyn Backend>, Tasks),
    hold: Hold,
) -> Up {
    let clock = Clock::system();
    let tasks = Tasks::new();
    let run = control::run(settings.control.clone(), store.clone(), listeners.control, tasks.clone(), clock.clone());
    let control = Running::start("control", tasks, run);
    let tasks = Tasks::new();
    let run = gateway::run(settings.gateway.clone(), listeners.gateway, tasks.clone(), clock);
    let gateway = Running::start("gateway", tasks, run);
    let tasks = Tasks::new();
    let run = run_worker(settings, store, Arc::clone(&backend), listeners.worker, tasks.clone());
    let worker = Running::start("worker", tasks, run);
    Up { gateway, control, worker, backend, backend_tasks, hold }
}

impl Up {
    /// Ends everything in the order in which nobody misses what is gone: the gateway finishes what is in flight while
    /// replicas still answer; the worker goes before them, or it would start them again.
    async fn end(self) {
        let end = Instant::now() + END;
        let left = |reserve: Duration| {
            let left = end.saturating_duration_since(Instant::now()).saturating_sub(reserve);
            left.max(Duration::from_millis(200))
        };
        self.gateway.end(left(REPLICAS_END + WORKER_END)).await;
        self.worker.end(WORKER_END).await;
        if let Err(error) = self.backend.shutdown(left(Duration::from_millis(500))).await {
            tell(format!("replicas may be left: {}", chain(&error)));
        }
        self.control.end(left(Duration::ZERO)).await;
        self.backend_tasks.stop_and_wait(Duration::from_millis(200)).await;
        drop(self.hold);
    }
}

/// Waits until the gateway holds a route table, so that what is said next is true.
async fn until_routed(gateway_url: &str) {
    let Ok(http) = base::client::builder_for(gateway_url).build() else { return };
    let url = format!("{gateway_url}/v2/health/ready");
    let end = Instant::now() + FIRST_ROUTES;
    while Instant::now() < end {
        let answer = http.get(&url).timeout(Duration::from_secs(1)).send().await;
        if answer.is_ok_and(|answer| answer.status().is_success()) {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

fn welcome(gateway_url: &str, control_url: &str) -> String {
    let at = |usual: &str, flag: &str, url: &str| if url == usual { String::new() } else { format!(" {flag} {url}") };
    let control = at("http://127.0.0.1:8081", "--control-url", control_url);
    let gateway = at("http://127.0.0.1:8080", "--gateway-url", gateway_url);
    format!(
        "Modelway is up. Ctrl-C ends it.\n\n  \
         gateway        {gateway_url}\n  \
         control plane  {control_url}   (try it: {control_url}/docs)\n\n\
         In another terminal:\n  \
         modelway deploy PATH --name NAME{control}{gateway}\n  \
         modelway predict NAME{gateway}\n  \
         modelway list{control}\n"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_commands_carry_the_addresses_that_are_not_the_usual_ones() {
        let usual = welcome("http://127.0.0.1:8080", "http://127.0.0.1:8081");
        assert!(usual.contains("modelway list\n"), "{usual}");
        let other = welcome("http://127.0.0.1:9080", "http://127.0.0.1:8081");
        assert!(other.contains("modelway predict NAME --gateway-url http://127.0.0.1:9080\n"), "{other}");
    }
}
