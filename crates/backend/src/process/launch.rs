//! Starts the process of one replica.

use std::{
    collections::BTreeSet,
    ffi::OsString,
    fs, io,
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use api::{ReplicaId, Revision, Timestamp, registry::ModelContent};
use serde_json::Value;

use super::{
    Config, cgroup,
    ending::TERMINATION_FILE,
    identity::{EPOCH, Identity, all_with_argument, find_by_arguments},
    layout::{Layout, Name, at},
    log, secrets,
    slot::{self, Phase, Record, Run},
};

/// The setting of a replica for its request timeout.
const REQUEST_TIMEOUT: &str = "MODELWAY__SERVE__REQUEST_TIMEOUT_MS";
/// The variable with the settings of single models for a replica, as JSON.
const MODELS: &str = "MODELWAY__SERVE__MODELS";

/// The setting of a replica for the interpreter of its model.
const MODEL_PYTHON: &str = "MODELWAY__SERVE__MODEL_PYTHON";

/// The environment variable that marks the processes of a replica.
const MARK: &str = "MODELWAY_REPLICA_SOCKET";

/// What every launch needs.
#[derive(Debug)]
pub(super) struct Launcher {
    /// The settings.
    pub(super) config: Config,
    /// The folders.
    pub(super) layout: Layout,
    /// The program.
    pub(super) program: PathBuf,
    /// This process.
    pub(super) me: Option<Identity>,
    /// The limiter.
    pub(super) limiter: cgroup::Limiter,
}

impl Launcher {
    /// Starts the replica of `record`; the caller holds the lock of the deployment. On return the slot says that it
    /// runs. After a crash at any point, [`Self::recover`] finds out from the slot what happened.
    pub(super) fn launch(&self, mut record: Record, revision: &Revision, now: Timestamp) -> io::Result<Record> {
        let slot = self.layout.slot(&record.id);
        // Before any write: nothing was started yet.
        let from_files = secrets::read(&revision.spec.env_from_file)?;
        record.phase = Phase::Launching;
        record.request_timeout_ms = revision.spec.request_timeout_ms;
        record.memory_limit = revision.spec.limit_res.memory.as_ref().map(ToString::to_string);
        slot::write(&slot, &record)?;
        slot::write_revision(&slot, revision)?;
        // Only now, because groups without a slot may be removed at any time.
        let groups = self.limiter.prepare(&record.id.0, &revision.spec.limit_res);
        record.groups = groups.folders;
        record.notes = groups.notes;
        record.notes.extend(self.too_short(revision));
        slot::write(&slot, &record)?;

        forget(&slot.join(TERMINATION_FILE))?;
        forget(&self.layout.socket(&record.id))?;
        let (out, log_from) = log::open_for_append(&slot)?;
        let oom_kills_before = cgroup::oom_kills(&record.groups);
        let child = self
            .command(&record.id, revision)
            .envs(from_files)
            .envs(record.origin.as_ref().map(|origin| (EPOCH, &origin.epoch.0)))
            .current_dir(&slot)
            .process_group(0)
            .stdin(Stdio::null())
            .stdout(out.try_clone()?)
            .stderr(out)
            .spawn()
            .map_err(|error| at("start", &self.program, error))?;
        // It stays a zombie until it is reaped here, so it has an identity even if it has already ended.
        let process = Identity::of(child.id())
            .ok_or_else(|| io::Error::other(format!("/proc does not show process {}", child.id())))?;
        self.settle(record, process, now, log_from, oom_kills_before)
    }

    /// Finds out what happened to a launch whose launcher died. `None`: nothing was started.
    pub(super) fn recover(&self, record: Record, now: Timestamp) -> io::Result<Option<Record>> {
        match self.find(&record.id) {
            Some(process) => {
                tracing::info!(replica = %record.id, pid = process.pid, "found a replica whose launch was cut short");
                let oom_kills_before = cgroup::oom_kills(&record.groups);
                self.settle(record, process, now, 0, oom_kills_before).map(Some)
            }
            None => Ok(None),
        }
    }

    /// The process that serves the name of this replica on the socket of this data directory.
    pub(super) fn find(&self, replica: &ReplicaId) -> Option<Identity> {
        let socket = self.layout.socket(replica);
        let arguments = [("--replica-id", replica.0.as_str()), ("--socket", socket.to_str()?)];
        // The kernel releases our lock a moment before it shows the arguments of the new program.
        (0..3).find_map(|attempt| {
            if attempt > 0 {
                std::thread::sleep(std::time::Duration::from_millis(10));
            }
            find_by_arguments(arguments)
        })
    }

    /// All processes that serve a replica on a socket of this data directory, with or without a record.
    pub(super) fn find_all(&self) -> Vec<(Name, Identity)> {
        let name = |socket: &str| {
            let name = Name::parse(Path::new(socket).file_stem()?.to_str()?)?;
            (self.layout.socket(&name.id()) == Path::new(socket)).then_some(name)
        };
        all_with_argument("--socket").filter_map(|(socket, process)| Some((name(&socket)?, process))).collect()
    }

    /// Whether the process in a record runs and is not a replica of that name. This happens only if a record was edited
    /// or copied from elsewhere.
    pub(super) fn names_a_stranger(&self, record: &Record) -> bool {
        let socket = self.layout.socket(&record.id);
        let Some((run, socket)) = record.run().zip(socket.to_str()) else { return false };
        run.process.is_alive() && !run.process.has_arguments([("--replica-id", &record.id.0), ("--socket", socket)])
    }

    /// The mark in the environment of every process of a replica: the path of its socket is unique.
    pub(super) fn mark(&self, replica: &ReplicaId) -> String {
        format!("{MARK}={}", self.layout.socket(replica).display())
    }

    fn settle(
        &self,
        mut record: Record,
        process: Identity,
        now: Timestamp,
        log_from: u64,
        oom_kills_before: u64,
    ) -> io::Result<Record> {
        if !record.groups.is_empty()
            && let Err(error) = cgroup::enter(&record.groups, process.pid)
            && process.is_alive()
        {
            record.notes.push(format!("limit_res is not enforced on this machine: {error}"));
        }
        record.phase = Phase::Running(Run {
            process,
            launcher: self.me.clone(),
            started_at: now,
            ready_since: None,
            artifact: None,
            log_from,
            oom_kills_before,
        });
        slot::write(&self.layout.slot(&record.id), &record)?;
        Ok(record)
    }

    fn command(&self, replica: &ReplicaId, revision: &Revision) -> Command {
        let mut command = Command::new(&self.program);
        command.args(self.arguments(replica, revision));
        // Modelway's own settings are not for the replica.
        for (name, _) in std::env::vars_os().filter(|(name, _)| name.as_encoded_bytes().starts_with(b"MODELWAY__")) {
            command.env_remove(name);
        }
        command.env(REQUEST_TIMEOUT, revision.spec.request_timeout_ms.to_string());
        command.envs(&self.config.serve_env).envs(&revision.spec.env).env(MARK, self.layout.socket(replica));
        if let Some(python) = &revision.spec.python {
            command.env(MODEL_PYTHON, python);
        }
        command
    }

    /// Notes about request timeouts in the settings of replicas that are shorter than the timeout of the deployment.
    fn too_short(&self, revision: &Revision) -> Vec<String> {
        let whole = revision.spec.request_timeout_ms;
        let told = |what: &str, set: u64| {
            (set < whole).then(|| {
                format!(
                    "{what} is {set}, which is less than the deployment's request_timeout_ms of {whole}: replicas give \
                     requests up after {set} ms; leave it out"
                )
            })
        };
        let of_all = self.config.serve_env.get(REQUEST_TIMEOUT).and_then(|set| set.parse().ok());
        let of_all = of_all.and_then(|set| told(&format!("{REQUEST_TIMEOUT} in process.serve_env"), set));
        let models = self.config.serve_env.get(MODELS).and_then(|text| serde_json::from_str::<Value>(text).ok());
        let own = revision.deployment.to_string();
        let names = [Some(&own), revision.spec.name.as_ref()];
        let of_one = names.into_iter().flatten().find_map(|name| {
            let set = models.as_ref()?.get(name)?.get("request_timeout_ms")?.as_u64()?;
            told(&format!("serve.models.{name}.request_timeout_ms"), set)
        });
        of_all.into_iter().chain(of_one).collect()
    }

    fn arguments(&self, replica: &ReplicaId, revision: &Revision) -> Vec<OsString> {
        let spec = &revision.spec;
        let mut arguments: Vec<OsString> = vec!["serve".into()];
        // User input may begin with a hyphen.
        let mut say = |flag: &str, value: &str| arguments.push(format!("{flag}={value}").into());
        if let ModelContent::Artifact { uris, digest } = &spec.content {
            let pin = revision.pin.as_ref();
            // The location where the files were found comes first: it contains the version that an address resolved to.
            let found = pin.map(|pin| &pin.files.uri);
            for uri in found.into_iter().chain(uris.iter().filter(|uri| Some(*uri) != found)) {
                say("--model-uri", uri);
            }
            if let Some(digest) = pin.map(|pin| &pin.files.digest).or(digest.as_ref()) {
                say("--digest", digest);
            }
            if let Some(pin) = pin {
                say("--pinned-since", &format!("{}Z", pin.at));
            }
        }
        say("--model-name", &revision.deployment.to_string());
        if let Some(name) = &spec.name {
            say("--alias", name);
        }
        say("--model-version", &spec.model_version);
        say("--drain-ms", &self.config.drain_ms.to_string());
        // Variables from the user are for the model; the rest of our environment is for its server.
        let set = self.config.serve_env.keys().chain(spec.env.keys()).chain(spec.env_from_file.keys());
        let ours = |name: &str| name.starts_with("MODELWAY__") || name == "MODELWAY_CONFIG";
        for name in set.filter(|name| !ours(name)).collect::<BTreeSet<_>>() {
            say("--pass-env", name);
        }
        // These two arguments identify a replica whose pid was never recorded: see `find`.
        arguments.extend(["--replica-id".into(), (&replica.0).into()]);
        arguments.extend(["--socket".into(), self.layout.socket(replica).into()]);
        arguments.extend(["--termination-message".into(), self.layout.slot(replica).join(TERMINATION_FILE).into()]);
        arguments
    }
}

/// This program, even if an upgrade has replaced its file.
pub(super) fn own_program() -> PathBuf {
    std::env::current_exe().ok().filter(|path| path.exists()).unwrap_or_else(|| PathBuf::from("/proc/self/exe"))
}

/// Removes a file, if it is there.
pub(super) fn forget(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(at("remove", path, error)),
        Ok(()) => Ok(()),
    }
}
