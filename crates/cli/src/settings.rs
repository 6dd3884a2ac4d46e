//! All settings of all roles in one tree, and the mapping of flags to them.
//!
//! Each section is the `Config` of its crate. A default that depends on other settings, such as the location of the
//! database, is a derived default: every explicit value overrides it, and the dump shows what it was derived from.

use std::path::PathBuf;

use base::config::{ConfigError, Faults, Layers, Loaded, Section, variable};
use serde::{Deserialize, Serialize};

use crate::args::{self, BackendKind, Cli, Command, Connection, Models};

/// The settings: modelway.toml, as a type.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Settings {
    /// The folder for all data.
    pub data_dir: PathBuf,
    /// Whether addresses other than loopback may be used without authentication.
    pub allow_unauthenticated: bool,
    /// The backend for replicas.
    pub backend: BackendKind,
    /// The log level and format.
    pub telemetry: base::telemetry::Config,
    /// The database.
    pub store: Store,
    /// The gateway.
    pub gateway: gateway::Config,
    /// The control plane.
    pub control: control::Config,
    /// The worker.
    pub worker: worker::Config,
    /// The process backend.
    pub process: backend::process::Config,
    /// The fake backend.
    pub fake: backend::fake::Config,
    /// The model server.
    pub serve: modelserver::Config,
    /// The client commands.
    pub client: crate::client::Config,
}

impl Section for Settings {
    fn check(&self, faults: &mut Faults) {
        faults.section("telemetry", &self.telemetry);
        faults.section("store", &self.store);
        faults.section("gateway", &self.gateway);
        faults.section("control", &self.control);
        faults.section("worker", &self.worker);
        faults.section("process", &self.process);
        faults.section("fake", &self.fake);
        faults.section("serve", &self.serve);
        faults.section("client", &self.client);
    }
}

/// The database.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Store {
    /// `sqlite:///path/file.db` or `postgres://…`.
    pub url: String,
    /// How long to wait for the database at the start, in milliseconds.
    pub patience_ms: u64,
}

impl Section for Store {
    fn check(&self, faults: &mut Faults) {
        // Its URL may contain a password, and is validated when it is opened.
        faults.pauses(&[("patience_ms", self.patience_ms)]);
    }
}

impl Default for Store {
    fn default() -> Self {
        Self { url: String::new(), patience_ms: 15_000 }
    }
}

/// Loads the settings for a command line.
///
/// # Errors
/// All faults in the settings.
pub fn load(cli: &Cli) -> Result<Loaded<Settings>, ConfigError> {
    let mut layers = Layers::new().file(cli.common.config.as_deref()).environment();
    layers = flags(layers, cli);
    with_derived(layers, cli.command.as_ref())
}

fn with_derived(layers: Layers, command: Option<&Command>) -> Result<Loaded<Settings>, ConfigError> {
    let (source, folder) = data_home();
    let mut layers = layers.derived(source, "data_dir", folder.to_string_lossy());
    let first = layers.clone().load::<Settings>()?;
    let data_dir = std::path::absolute(&first.settings.data_dir).unwrap_or(first.settings.data_dir.clone());
    let below = |part: &str| data_dir.join(part).to_string_lossy().into_owned();
    layers = layers
        .derived("data_dir", "store.url", format!("sqlite://{}", below("modelway.db")))
        .derived("data_dir", "process.data_dir", data_dir.to_string_lossy())
        .derived("data_dir", "gateway.table_file", below("gateway/routes.json"))
        .derived("data_dir", "gateway.predictions_dir", below("predictions"));
    let at = |addr: &str| format!("http://{addr}");
    if first.source("control.addr").is_some() {
        layers = layers.derived("control.addr", "client.control_url", at(&first.settings.control.addr));
    }
    if first.source("gateway.addr").is_some() {
        layers = layers.derived("gateway.addr", "client.gateway_url", at(&first.settings.gateway.addr));
    }
    let alone = match command {
        Some(Command::Up(_) | Command::Doctor(_) | Command::SupportBundle(_)) => {
            layers = layers
                .derived("gateway.addr", "control.gateway_url", at(&first.settings.gateway.addr))
                .derived("worker.placement", "control.default_placement", first.settings.worker.placement.clone())
                .derived("control.addr", "gateway.control_url", at(&first.settings.control.addr))
                .derived("data_dir", "serve.cache.dir", below("artifacts"))
                // The gateway in the same process stops using a replica long before it is told to end.
                .derived("the command", "process.drain_ms", 200);
            false
        }
        Some(Command::Worker(_)) => {
            layers = layers.derived("data_dir", "serve.cache.dir", below("artifacts"));
            true
        }
        Some(Command::Control(_) | Command::Gateway(_) | Command::Serve(_)) => true,
        Some(_) | None => false,
    };
    if alone {
        layers = layers.derived("the command", "telemetry.filter", "warn,modelway=info");
    }
    layers.load::<Settings>()?.checked()
}

/// The default data folder, and the rule for it: XDG Base Directory Specification.
fn data_home() -> (&'static str, PathBuf) {
    match (variable("XDG_DATA_HOME").map(PathBuf::from).filter(|home| home.is_absolute()), variable("HOME")) {
        (Some(home), _) => ("XDG_DATA_HOME", home.join("modelway")),
        (None, Some(home)) => ("HOME", PathBuf::from(home).join(".local/share/modelway")),
        (None, None) => ("the system", PathBuf::from("/var/tmp/modelway")),
    }
}

fn flags(mut layers: Layers, cli: &Cli) -> Layers {
    layers = layers.flag_if("--log", "telemetry.filter", cli.common.log.clone()).flag_if(
        "--log-format",
        "telemetry.format",
        cli.common.log_format.clone(),
    );
    layers = match &cli.command {
        Some(Command::Up(args)) => up(layers, args),
        Some(Command::Control(args)) => control(layers, args),
        Some(Command::Worker(args)) => worker(layers, args),
        Some(Command::Gateway(args)) => gateway(layers, args),
        Some(Command::Serve(args)) => serve(layers, args),
        Some(Command::Doctor(args)) => layers.flag_if("--data-dir", "data_dir", path(&args.data_dir)),
        Some(Command::SupportBundle(args)) => layers.flag_if("--data-dir", "data_dir", path(&args.data_dir)),
        Some(command) => match connection(command) {
            Some(connection) => layers
                .flag_if("--control-url", "client.control_url", connection.control_url.clone())
                .flag_if("--gateway-url", "client.gateway_url", connection.gateway_url.clone()),
            None => layers,
        },
        None => layers,
    };
    for (key, value) in &cli.common.set {
        layers = layers.text("flag --set", key, value);
    }
    layers
}

fn path(path: &Option<PathBuf>) -> Option<String> {
    // A replica and a database do not share the working directory of this process.
    path.as_ref().map(|path| std::path::absolute(path).unwrap_or_else(|_| path.clone()).to_string_lossy().into_owned())
}

fn open_to_all(layers: Layers, allowed: bool) -> Layers {
    layers.flag_if("--allow-unauthenticated", "allow_unauthenticated", allowed.then_some(true))
}

fn up(layers: Layers, args: &args::Up) -> Layers {
    let layers = layers
        .flag_if("--data-dir", "data_dir", path(&args.data_dir))
        .flag_if("--gateway-addr", "gateway.addr", args.gateway_addr.clone())
        .flag_if("--control-addr", "control.addr", args.control_addr.clone())
        .flag_if("--gateway-url", "control.gateway_url", args.gateway_url.clone())
        .flag_if("--store-url", "store.url", args.store_url.clone());
    open_to_all(layers, args.allow_unauthenticated)
}

fn control(layers: Layers, args: &args::Control) -> Layers {
    let layers = layers
        .flag_if("--data-dir", "data_dir", path(&args.data_dir))
        .flag_if("--addr", "control.addr", args.addr.clone())
        .flag_if("--gateway-url", "control.gateway_url", args.gateway_url.clone())
        .flag_if("--store-url", "store.url", args.store_url.clone());
    open_to_all(layers, args.allow_unauthenticated)
}

fn worker(layers: Layers, args: &args::Worker) -> Layers {
    let kind = args.backend.map(|kind| match kind {
        BackendKind::Process => "process",
        BackendKind::Fake => "fake",
    });
    let layers = layers
        .flag_if("--data-dir", "data_dir", path(&args.data_dir))
        .flag_if("--backend", "backend", kind)
        .flag_if("--placement", "worker.placement", args.placement.clone())
        .flag_if("--addr", "worker.addr", args.addr.clone())
        .flag_if("--store-url", "store.url", args.store_url.clone());
    open_to_all(layers, args.allow_unauthenticated)
}

fn gateway(layers: Layers, args: &args::Gateway) -> Layers {
    let layers = layers
        .flag_if("--data-dir", "data_dir", path(&args.data_dir))
        .flag_if("--addr", "gateway.addr", args.addr.clone())
        .flag_if("--control-url", "gateway.control_url", args.control_url.clone());
    open_to_all(layers, args.allow_unauthenticated)
}

fn serve(layers: Layers, args: &args::Serve) -> Layers {
    let list = |list: &Vec<String>| (!list.is_empty()).then(|| list.clone());
    layers
        .flag_if("SOURCE", "serve.source", args.source.clone())
        .flag_if("--model-uri", "serve.model_uri", list(&args.model_uri))
        .flag_if("--model-name", "serve.model_name", args.model_name.clone())
        .flag_if("--alias", "serve.alias", list(&args.alias))
        .flag_if("--model-version", "serve.model_version", args.model_version.clone())
        .flag_if("--digest", "serve.digest", args.digest.clone())
        .flag_if("--pinned-since", "serve.pinned_since", args.pinned_since.clone())
        .flag_if("--host", "serve.host", args.host.clone())
        .flag_if("--port", "serve.port", args.port)
        .flag_if("--socket", "serve.socket", path(&args.socket))
        .flag_if("--replica-id", "serve.replica_id", args.replica_id.clone())
        .flag_if("--termination-message", "serve.termination_message", path(&args.termination_message))
        .flag_if("--pass-env", "serve.pass_env", list(&args.pass_env))
        .flag_if("--drain-ms", "serve.drain_ms", args.drain_ms)
}

/// The URL that a client command uses, if any.
fn connection(command: &Command) -> Option<&Connection> {
    match command {
        Command::Deploy(args) => Some(&args.connection),
        Command::Apply(args) => Some(&args.connection),
        Command::Scale(args) => Some(&args.connection),
        Command::Rollback(args) => Some(&args.connection),
        Command::Delete(args) => Some(&args.connection),
        Command::List(args) => Some(&args.connection),
        Command::Get(args) => Some(&args.connection),
        Command::Describe(args) => Some(&args.connection),
        Command::Events(args) => Some(&args.connection),
        Command::Logs(args) => Some(&args.connection),
        Command::Predict(args) => Some(&args.connection),
        Command::Strays(args) => Some(&args.connection),
        Command::Models(Models::Register(args)) => Some(&args.connection),
        Command::Models(Models::AddVersion(args)) => Some(&args.connection),
        Command::Models(Models::Delete(args)) => Some(&args.connection),
        Command::Models(Models::List { connection, .. } | Models::Get { connection, .. }) => Some(connection),
        Command::Models(Models::Digest { .. })
        | Command::Up(_)
        | Command::Control(_)
        | Command::Worker(_)
        | Command::Gateway(_)
        | Command::Serve(_)
        | Command::Golden(_)
        | Command::Doctor(_)
        | Command::SupportBundle(_)
        | Command::Completion(_)
        | Command::Version(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;

    fn loaded(line: &str, variables: &[(&str, &str)]) -> Loaded<Settings> {
        let cli = Cli::try_parse_from(line.split(' ')).expect("it can be parsed");
        let variables = variables.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        let layers = flags(Layers::new().variables(variables), &cli);
        with_derived(layers, cli.command.as_ref()).expect("it is right")
    }

    #[test]
    fn a_flag_wins_over_the_environment() {
        let variables = [("MODELWAY__GATEWAY__ADDR", "127.0.0.1:1"), ("MODELWAY__CONTROL__ADDR", "127.0.0.1:2")];
        let loaded = loaded("modelway up --gateway-addr 127.0.0.1:3 --data-dir /srv/m", &variables);
        assert_eq!(loaded.settings.gateway.addr, "127.0.0.1:3");
        assert_eq!(loaded.settings.control.addr, "127.0.0.1:2");
        assert_eq!(loaded.settings.control.gateway_url, "http://127.0.0.1:3");
        assert_eq!(loaded.settings.gateway.control_url, "http://127.0.0.1:2");
        assert_eq!(loaded.settings.store.url, "sqlite:///srv/m/modelway.db");
        assert_eq!(loaded.source("store.url"), Some("default from data_dir"));
    }

    #[test]
    fn the_defaults_can_work_and_every_section_refuses_what_cannot() {
        let refused = |key: &str, value: &str| {
            let cli =
                Cli::try_parse_from(["modelway", "up", "--set", &format!("{key}={value}")]).expect("it can be parsed");
            match with_derived(flags(Layers::new(), &cli), cli.command.as_ref()) {
                Ok(_) => panic!("{key} = {value} is taken"),
                Err(error) => error.to_string(),
            }
        };
        assert!(loaded("modelway up", &[]).source("gateway.retries").is_none());
        for (key, value) in [
            ("telemetry.filter", "loud=="),
            ("store.patience_ms", "99999999999999"),
            ("gateway.addr", "8080"),
            ("gateway.max_in_flight", "0"),
            ("gateway.header_timeout_ms", "0"),
            ("gateway.record_file_bytes", "9999999999999"),
            ("gateway.threads", "1000000"),
            ("gateway.control_url", "127.0.0.1:8081"),
            ("control.gateway_url", "ftp://x"),
            ("control.max_watchers", "0"),
            ("control.allowed_hosts", "http://x"),
            ("worker.concurrency", "0"),
            ("worker.lease_ms", "0"),
            ("worker.heartbeat_ms", "30000"),
            ("worker.advertise_addr", "somewhere"),
            ("process.backoff_base_ms", "400000"),
            ("process.log_max_bytes", "0"),
            ("fake.address", "x"),
            ("serve.instances", "0"),
            ("serve.max_batch_size", "0"),
            ("serve.bodies_limit_bytes", "1"),
            ("serve.cache.attempts", "0"),
            ("serve.cache.schemes", "ftp"),
            ("serve.models.iris.instances", "0"),
            ("client.timeout_ms", "0"),
        ] {
            let said = refused(key, value);
            assert!(said.contains(&format!("flag --set: `{key}` is ")), "{key}: {said}");
        }
    }

    #[test]
    fn a_client_follows_the_address_that_the_file_gives_the_server() {
        let loaded = loaded("modelway list", &[("MODELWAY__CONTROL__ADDR", "127.0.0.1:2")]);
        assert_eq!(loaded.settings.client.control_url, "http://127.0.0.1:2");
        assert_eq!(loaded.settings.client.gateway_url, "http://127.0.0.1:8080");
    }

    #[test]
    fn every_setting_can_be_a_flag() {
        let loaded = loaded("modelway gateway --set gateway.retries=5 --set serve.cache.max_files=3", &[]);
        assert_eq!(loaded.settings.gateway.retries, 5);
        assert_eq!(loaded.settings.serve.cache.max_files, 3);
    }

    #[test]
    fn the_dump_shows_every_value_with_its_source() {
        let loaded = loaded(
            "modelway up --data-dir /srv/modelway --gateway-addr 127.0.0.1:9080",
            &[("MODELWAY__GATEWAY__RETRIES", "4")],
        );
        insta::assert_snapshot!(loaded.dump());
    }

    #[test]
    fn the_words_of_serve_are_the_settings_of_serve() {
        let line = "modelway serve --model-uri a --model-uri b --alias x --port 0 --drain-ms 7 --socket /run/x.sock";
        assert!(Cli::try_parse_from(line.split(' ')).is_err(), "a port and a socket exclude each other");
        let serve = loaded(&line.replace("--port 0 ", ""), &[]).settings.serve;
        assert_eq!(serve.model_uri, ["a", "b"]);
        assert_eq!(serve.alias, ["x"]);
        assert_eq!(serve.drain_ms, 7);
        assert_eq!(serve.socket, Some(PathBuf::from("/run/x.sock")));
    }
}
