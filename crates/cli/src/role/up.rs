//! `up`: all roles in one process, connected over HTTP as when they run separately.

use std::{pin::pin, process::ExitCode, sync::Arc, time::Duration};

use api::Epoch;
use backend::Backend;
use base::{Clock, Tasks, config::Loaded, error::chain};
use tokio::net::TcpListener;

use super::{
    lock::Hold,
    running::{FEW_THREADS, Running, address, at_once, listen, make_folder, open_store, with_runtime},
    signal::Signals,
    worker::open_backend,
};
use crate::{
    exit::Failure,
    output::{print, tell},
    settings::Settings,
};

/// The time that the gateway may take to stop, in addition to `gateway.drain_ms` for the requests in flight.
const GATEWAY_END: Duration = Duration::from_secs(3);
/// After this time, the user is told what the process waits for.
const SOON: Duration = Duration::from_secs(1);
/// The time that replicas may take to stop: they no longer get requests.
const REPLICAS_END: Duration = Duration::from_secs(3);
/// The time that the control plane may take to stop.
const CONTROL_END: Duration = Duration::from_secs(1);
/// The maximum time for the worker's current passes.
const WORKER_END: Duration = Duration::from_secs(2);
/// How long the gateway may take to get the first routes before the URLs are printed anyway.
const FIRST_ROUTES: Duration = Duration::from_secs(10);

/// The listeners and locks that are taken first.
struct Listeners {
    gateway: TcpListener,
    control: TcpListener,
    worker: TcpListener,
}

/// The URLs of the two servers on this machine.
#[derive(Clone, Debug)]
struct Urls {
    gateway: String,
    control: String,
}

/// The running roles.
struct Up {
    gateway: Running,
    control: Running,
    worker: Running,
    backend: Arc<dyn Backend>,
    backend_tasks: Tasks,
    store: store::Store,
    /// The epoch of the database at the start.
    epoch: Epoch,
    urls: Urls,
    /// How long requests in flight may take to end.
    drain: Duration,
    /// Released last: until then nobody else may use the folder.
    hold: Hold,
}

/// Runs all roles until a signal, or until one of them fails.
///
/// # Errors
/// An unusable folder, address or database, or whatever ends a role early.
pub fn up(loaded: &Loaded<Settings>) -> Result<ExitCode, Failure> {
    with_runtime(&loaded.settings, FEW_THREADS, Box::pin(run(loaded)))
}

async fn run(loaded: &Loaded<Settings>) -> Result<ExitCode, Failure> {
    let mut signals = Signals::listen()?;
    let mut up = tokio::select! {
        started = start(loaded) => started?,
        // Replicas of an earlier run may exist already; the next start finds them.
        _ = signals.next() => return Ok(ExitCode::SUCCESS),
    };
    let mut welcome = std::pin::pin!(welcome(up.urls.clone()));
    let mut welcomed = false;
    let failure = loop {
        tokio::select! {
            failure = up.gateway.fails() => break Some(failure),
            failure = up.control.fails() => break Some(failure),
            failure = up.worker.fails() => break Some(failure),
            _ = signals.next() => break None,
            () = &mut welcome, if !welcomed => welcomed = true,
        }
    };
    let (backend, epoch) = (Arc::clone(&up.backend), up.epoch().await);
    tokio::select! {
        () = up.end(&epoch) => failure.map_or(Ok(ExitCode::SUCCESS), Err),
        _ = signals.next() => {
            if let Err(error) = backend.shutdown(Duration::ZERO, &epoch).await {
                tell(format!("replicas may still be running: {}", chain(&error)));
            }
            Err(at_once())
        }
    }
}

async fn start(loaded: &Loaded<Settings>) -> Result<Up, Failure> {
    let settings = &loaded.settings;
    make_folder(&settings.data_dir)?;
    let mut hold = Hold::take(&settings.data_dir)?;
    let listeners = Listeners {
        gateway: listen(&settings.gateway.addr, "gateway.addr (--gateway-addr)", settings).await?,
        control: listen(&settings.control.addr, "control.addr (--control-addr)", settings).await?,
        worker: listen(&settings.worker.addr, "worker.addr (--set worker.addr=…)", settings).await?,
    };
    let urls = Urls {
        gateway: format!("http://{}", address(&listeners.gateway)?),
        control: format!("http://{}", address(&listeners.control)?),
    };
    hold.say(&format!(", gateway {}, control plane {}", urls.gateway, urls.control))?;
    let store = open_store(settings).await?;
    let epoch = Epoch(store.epoch().await.map_err(|error| Failure::of(&error))?);
    let backend_tasks = Tasks::new();
    let backend = open_backend(loaded, &backend_tasks).await?;
    // There is no await from here on, so a signal cannot leave anything started without an owner.
    let settings = with_urls(loaded, &urls);
    Ok(compose(settings, listeners, (store, epoch), (backend, backend_tasks), urls, hold))
}

/// The settings with the bound ports, unless the user set a URL.
fn with_urls(loaded: &Loaded<Settings>, urls: &Urls) -> Settings {
    let mut settings = loaded.settings.clone();
    let derived = |key| loaded.source(key).is_none_or(|source| source.starts_with("default"));
    if derived("control.gateway_url") {
        urls.gateway.clone_into(&mut settings.control.gateway_url);
    }
    if derived("gateway.control_url") {
        urls.control.clone_into(&mut settings.gateway.control_url);
    }
    settings
}

fn compose(
    settings: Settings,
    listeners: Listeners,
    (store, epoch): (store::Store, Epoch),
    (backend, backend_tasks): (Arc<dyn Backend>, Tasks),
    urls: Urls,
    hold: Hold,
) -> Up {
    let clock = Clock::system();
    let drain = Duration::from_millis(settings.gateway.drain_ms);
    let wake_ups = Arc::new(wake::Local::default());
    let (hints, tasks) = (wake_ups.clone(), Tasks::new());
    let run = control::run(settings.control, store.clone(), hints, listeners.control, tasks.clone(), clock.clone());
    let control = Running::start("control", tasks, run);
    let tasks = Tasks::new();
    let run = gateway::run(settings.gateway, listeners.gateway, tasks.clone(), clock.clone(), modelserver::reflect);
    let gateway = Running::start("gateway", tasks, run);
    let tasks = Tasks::new();
    let (at, backend_of_worker) = (listeners.worker, Arc::clone(&backend));
    let run = worker::run(settings.worker, store.clone(), wake_ups, backend_of_worker, at, tasks.clone(), clock);
    let worker = Running::start("worker", tasks, run);
    Up { gateway, control, worker, backend, backend_tasks, store, epoch, urls, drain, hold }
}

impl Up {
    /// The current epoch of the database: a worker gives it a new one after a restore.
    async fn epoch(&self) -> Epoch {
        match tokio::time::timeout(SOON, self.store.epoch()).await {
            Ok(Ok(epoch)) => Epoch(epoch),
            Ok(Err(_)) | Err(_) => self.epoch.clone(),
        }
    }

    /// Stops everything in a safe order: the gateway finishes the requests in flight while replicas still answer. The
    /// worker stops before the replicas, because it would restart them.
    async fn end(self, epoch: &Epoch) {
        let mut in_flight = pin!(self.gateway.end(self.drain + GATEWAY_END));
        if tokio::time::timeout(SOON, &mut in_flight).await.is_err() {
            let seconds = self.drain.as_secs();
            tell(format!(
                "requests are in flight: waiting for them for at most {seconds} s (gateway.drain_ms); a second signal ends \
                 all at once"
            ));
            in_flight.await;
        }
        self.worker.end(WORKER_END).await;
        if let Err(error) = self.backend.shutdown(REPLICAS_END, epoch).await {
            tell(format!("replicas may still be running: {}", chain(&error)));
        }
        if let Ok(left @ [_, ..]) = self.backend.observe_all().await.as_deref() {
            let names: Vec<_> = left.iter().map(|replica| replica.id.to_string()).collect();
            tell(format!("these replicas belong to another database and keep running: {}", names.join(", ")));
        }
        self.control.end(CONTROL_END).await;
        self.backend_tasks.stop_and_wait(Duration::from_millis(200)).await;
        drop(self.hold);
    }
}

/// Prints the URLs once the gateway has a route table, so that they work.
async fn welcome(urls: Urls) {
    let ready = async {
        let Ok(http) = base::client::builder_for(&urls.gateway).build() else { return };
        let url = format!("{}/v2/health/ready", urls.gateway);
        while !http.get(&url).send().await.is_ok_and(|answer| answer.status().is_success()) {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    if tokio::time::timeout(FIRST_ROUTES, ready).await.is_err() {
        tell("the gateway has no routes yet; it keeps asking for them");
    }
    if let Err(failure) = print(words(&urls)) {
        // Nobody reads it; that is no error.
        tracing::debug!(%failure, "standard output is gone");
    }
}

fn words(urls: &Urls) -> String {
    let Urls { gateway, control } = urls;
    let at = |usual: &str, flag: &str, url: &str| if url == usual { String::new() } else { format!(" {flag} {url}") };
    let to_control = at("http://127.0.0.1:8081", "--control-url", control);
    let to_gateway = at("http://127.0.0.1:8080", "--gateway-url", gateway);
    format!(
        "Modelway is up. Ctrl-C ends it.\n\n  \
         gateway        {gateway}\n  \
         control plane  {control}   (try it: {control}/docs)\n\n\
         In another terminal:\n  \
         modelway deploy PATH --name NAME{to_control}{to_gateway}\n  \
         modelway predict NAME{to_gateway}\n  \
         modelway list{to_control}\n"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words_at(gateway: &str, control: &str) -> String {
        words(&Urls { gateway: gateway.to_owned(), control: control.to_owned() })
    }

    #[test]
    fn the_first_commands_carry_the_addresses_that_are_not_the_usual_ones() {
        let usual = words_at("http://127.0.0.1:8080", "http://127.0.0.1:8081");
        assert!(usual.contains("modelway list\n"), "{usual}");
        let other = words_at("http://127.0.0.1:9080", "http://127.0.0.1:8081");
        assert!(other.contains("modelway predict NAME --gateway-url http://127.0.0.1:9080\n"), "{other}");
    }
}
