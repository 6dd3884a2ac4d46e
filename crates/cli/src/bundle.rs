//! `support-bundle`: writes the data that a supporter needs into one file, without secrets.
//!
//! It contains the settings, the versions, the results of `doctor`, deployments, events, stray replicas, metrics, and
//! the last lines of the logs of replicas. Each part has a maximum size. If a part is not available, its place contains
//! the reason.
//!
//! **Invariant:** it contains neither the value of a variable with a secret name, nor a password in a URL: they are
//! removed from documents, and replaced in all other text.

mod scrub;

use std::{
    fs::{self, File},
    io::{self, Read as _, Seek as _, SeekFrom},
    path::{Path, PathBuf},
    time::Duration,
};

use base::{Clock, config::Loaded};
use flate2::{Compression, write::GzEncoder};
use serde_json::{Value, json};

use crate::{
    args, doctor,
    exit::Failure,
    output::{print, tell},
    settings::Settings,
};
use scrub::Scrub;

/// Maximum size of a part: of a log, of a page of metrics.
const PART_BYTES: u64 = 1 << 20;
/// How much of each log is kept.
const LOG_BYTES: u64 = 128 << 10;
/// Maximum number of logs, newest first.
const LOGS: usize = 50;
/// Timeout of each request.
const PATIENCE: Duration = Duration::from_secs(5);

/// Writes the file and prints its path.
///
/// # Errors
/// The file cannot be written.
pub async fn support_bundle(loaded: &Loaded<Settings>, args: &args::SupportBundle) -> Result<(), Failure> {
    let settings = &loaded.settings;
    let path = args.file.clone().unwrap_or_else(|| PathBuf::from("modelway-support.tar.gz"));
    let refused = |error: io::Error| Failure::failed(format!("{} cannot be written: {error}", path.display()));
    let parts = parts(loaded, settings).await;
    let file = base::private::options().write(true).create_new(true).open(&path).map_err(|error| {
        if error.kind() == io::ErrorKind::AlreadyExists {
            return Failure::failed(format!("{} already exists; it was not changed", path.display()))
                .next("Name another file with --file.");
        }
        refused(error)
    })?;
    let mut archive = tar::Builder::new(GzEncoder::new(file, Compression::default()));
    let now = Clock::system().now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default().as_secs();
    for (name, text) in &parts {
        let mut header = tar::Header::new_gnu();
        header.set_size(text.len() as u64);
        header.set_mode(0o600);
        header.set_mtime(now);
        archive.append_data(&mut header, format!("modelway-support/{name}"), text.as_bytes()).map_err(refused)?;
    }
    archive.into_inner().and_then(GzEncoder::finish).and_then(|file| file.sync_all()).map_err(refused)?;
    print(format!("{}\n", path.display()))?;
    tell(format!("{} parts. Known secrets were removed; check it before you send it.", parts.len()));
    Ok(())
}

async fn parts(loaded: &Loaded<Settings>, settings: &Settings) -> Vec<(String, String)> {
    let mut scrub = Scrub::new(loaded);
    let ask = Ask { control: settings.client.control_url.trim_end_matches('/').to_owned() };
    let gateway = settings.client.gateway_url.trim_end_matches('/').to_owned();
    let deployments = ask.document("/v1/modelDeployment?limit=1000").await;
    let events = ask.document("/v1/events?order=desc&limit=1000").await;
    let strays = ask.document("/v1/strays").await;
    for document in [&deployments, &events, &strays].into_iter().flatten() {
        scrub.learn(document);
    }
    let checks = doctor::checks(settings).await;
    let mut parts = vec![
        ("version.json".to_owned(), pretty(&versions())),
        ("settings.toml".to_owned(), scrub.settings(&loaded.dump())),
        ("doctor.txt".to_owned(), doctor::table(&checks)),
        ("deployments.json".to_owned(), told(deployments.map(|it| scrub.document(it)))),
        ("events.json".to_owned(), told(events)),
        ("strays.json".to_owned(), told(strays)),
        ("metrics-control.txt".to_owned(), page(&format!("{}/metrics", ask.control)).await),
        ("metrics-gateway.txt".to_owned(), page(&format!("{gateway}/metrics")).await),
    ];
    parts.extend(logs(&settings.data_dir));
    parts.into_iter().map(|(name, text)| (name, scrub.text(&text))).collect()
}

/// A client for documents of the control plane.
struct Ask {
    control: String,
}

impl Ask {
    async fn document(&self, path: &str) -> Result<Value, String> {
        let text = get(&format!("{}{path}", self.control)).await?;
        serde_json::from_str(&text).map_err(|error| format!("this is not valid JSON: {error}"))
    }
}

async fn get(url: &str) -> Result<String, String> {
    let client = base::client::builder_for(url).timeout(PATIENCE).build().map_err(|error| error.to_string())?;
    let answer = client.get(url).send().await.map_err(|error| base::error::chain(&error))?;
    let status = answer.status();
    let text = answer.text().await.map_err(|error| base::error::chain(&error))?;
    if status.is_success() { Ok(text) } else { Err(format!("{url} answers {status}")) }
}

async fn page(url: &str) -> String {
    let longest = usize::try_from(PART_BYTES).unwrap_or(usize::MAX);
    match get(url).await {
        Ok(text) => text[..text.floor_char_boundary(longest)].to_owned(),
        Err(why) => not_there(&why),
    }
}

fn told(document: Result<Value, String>) -> String {
    document.map_or_else(|why| not_there(&why), |document| pretty(&document))
}

fn not_there(why: &str) -> String {
    format!("this part is missing: {why}\n")
}

fn pretty(document: &Value) -> String {
    serde_json::to_string_pretty(document).unwrap_or_default() + "\n"
}

fn versions() -> Value {
    let read = |path: &str| fs::read_to_string(path).map(|text| text.trim().to_owned()).unwrap_or_default();
    let release = read("/etc/os-release");
    let system = release.lines().find_map(|line| line.strip_prefix("PRETTY_NAME=")).unwrap_or_default();
    let memory = read("/proc/meminfo");
    json!({
        "modelway": env!("CARGO_PKG_VERSION"),
        "architecture": std::env::consts::ARCH,
        "system": system.trim_matches('"'),
        "kernel": read("/proc/sys/kernel/osrelease"),
        "cpus": std::thread::available_parallelism().map_or(0, usize::from),
        "memory": memory.lines().take(3).collect::<Vec<_>>(),
    })
}

/// The ends of the logs of replicas, including removed ones, newest first.
fn logs(data_dir: &Path) -> Vec<(String, String)> {
    let replicas = data_dir.join("replicas");
    let running = entries(&replicas).into_iter().map(|folder| folder.join("log"));
    let ended = entries(&replicas.join(".ended"));
    let mut found: Vec<_> = running
        .chain(ended)
        .filter_map(|path| {
            let changed = fs::metadata(&path).ok().filter(fs::Metadata::is_file)?.modified().ok()?;
            Some((changed, path))
        })
        .collect();
    found.sort_by(|a, b| b.cmp(a));
    let name = |path: &Path| {
        let below = path.strip_prefix(&replicas).unwrap_or(path).to_string_lossy();
        format!("logs/{}.txt", below.trim_start_matches(".ended/").trim_end_matches("/log").trim_end_matches(".log"))
    };
    found.into_iter().take(LOGS).map(|(_, path)| (name(&path), end_of(&path))).collect()
}

fn entries(folder: &Path) -> Vec<PathBuf> {
    fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path()).collect()
}

/// The last complete lines of a file.
fn end_of(path: &Path) -> String {
    let read = || -> io::Result<String> {
        let mut file = File::open(path)?;
        let length = file.metadata()?.len();
        file.seek(SeekFrom::Start(length.saturating_sub(LOG_BYTES)))?;
        let mut bytes = Vec::new();
        file.take(LOG_BYTES).read_to_end(&mut bytes)?;
        let text = String::from_utf8_lossy(&bytes).into_owned();
        // A partial secret would not be recognised.
        Ok(if length > LOG_BYTES {
            text.split_once('\n').map(|(_, rest)| rest.to_owned()).unwrap_or_default()
        } else {
            text
        })
    };
    read().unwrap_or_else(|error| not_there(&error.to_string()))
}
