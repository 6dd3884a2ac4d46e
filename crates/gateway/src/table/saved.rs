//! The last route table on disk: a gateway that starts without the control plane serves from it.
//!
//! The file has one JSON object per line: first the [`Head`], then each entry. A file of 0.1.0 has whole routes
//! instead. A new file is written completely and then renamed over the old one, so that there is always a complete one.
//! A damaged file is logged and ignored, because the control plane has the data.

use std::{
    cell::Cell,
    fs::File,
    io::{self, BufRead as _, BufReader, BufWriter, Write as _},
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant},
};

use api::{
    EndpointId,
    route::{Change, Entry, form1::RouteChange},
};
use base::Tasks;
use serde::{Deserialize, Serialize};
use tokio::sync::watch;

use super::routes::Table;

/// The format of the written file.
const FORM: u32 = 2;
/// The format of 0.1.0.
const WHOLE_ROUTES: u32 = 1;
/// The delay after a change, to collect further ones.
const GATHER: Duration = Duration::from_millis(300);
/// Maximum share of the time for writing.
const SHARE: u32 = 20;
const AFTER_FAILURE: Duration = Duration::from_secs(5);

/// The position of a table.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Position {
    /// The epoch of the database; `None` before the first table.
    pub(crate) epoch: Option<String>,
    /// The table's version.
    pub(crate) version: i64,
}

#[derive(Debug, Serialize, Deserialize)]
struct Head {
    form: u32,
    epoch: Option<String>,
    version: i64,
    /// The number of lines that follow.
    routes: usize,
}

/// Loads the file into the table. Returns its position; the beginning if there is no valid file.
pub(crate) fn load(path: &Path, table: &Table) -> Position {
    match read(path, table) {
        Ok(position) => {
            let count = table.endpoints();
            tracing::info!("serving {count} endpoints of {} until the control plane answers", path.display());
            position
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => Position::default(),
        Err(error) => {
            let path = path.display();
            tracing::warn!("the saved route table in {path} is invalid ({error}); waiting for the control plane");
            Position::default()
        }
    }
}

fn read(path: &Path, table: &Table) -> io::Result<Position> {
    let mut lines = BufReader::new(File::open(path)?).lines();
    let damaged = |what: &str| io::Error::new(io::ErrorKind::InvalidData, what.to_owned());
    let head: Head = serde_json::from_str(&lines.next().ok_or_else(|| damaged("it is empty"))??)?;
    let count = Cell::new(0);
    let lines = lines.inspect(|_| count.set(count.get() + 1));
    let entries: Box<dyn Iterator<Item = io::Result<Entry>>> = match head.form {
        FORM => Box::new(lines.map(|line| Ok(serde_json::from_str::<Change>(&line?)?.entry))),
        WHOLE_ROUTES => Box::new(lines.flat_map(|line| match line.and_then(|line| Ok(serde_json::from_str(&line)?)) {
            Ok(change) => halves(change).into_iter().map(Ok).collect(),
            Err(error) => vec![Err(error)],
        })),
        _ => return Err(damaged("another version of Modelway wrote it")),
    };
    let whole = std::iter::once_with(|| count.get() == head.routes);
    let cut_off = whole.filter(|whole| !whole).map(|_| Err(damaged("its end is missing")));
    table.fill(entries.chain(cut_off), head.version)?;
    Ok(Position { epoch: head.epoch, version: head.version })
}

fn halves(change: RouteChange) -> [Entry; 2] {
    let RouteChange { deployment: key, route, .. } = change;
    let (policy, targets) = route.map(|route| route.split(key)).unzip();
    [Entry::Endpoint { key: EndpointId::from(key), value: policy }, Entry::Targets { key, value: targets }]
}

/// Writes the table. Blocks as long as the disk takes.
fn write(path: &Path, table: &Table, position: &Position) -> io::Result<()> {
    let (endpoints, waiting): (Vec<_>, _) = (table.all().collect(), table.waiting());
    let served = endpoints.iter().filter(|endpoint| !endpoint.is_refused()).count();
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder)?;
    }
    let beside = beside(path);
    let write = || {
        let mut file = BufWriter::new(base::private::create(&beside)?);
        let (epoch, version) = (position.epoch.clone(), position.version);
        let head = Head { form: FORM, epoch, version, routes: endpoints.len() + served + waiting.len() };
        serde_json::to_writer(&mut file, &head)?;
        let mut line = |entry| {
            file.write_all(b"\n")?;
            Ok::<_, io::Error>(serde_json::to_writer(&mut file, &Change { version, entry })?)
        };
        for endpoint in &endpoints {
            line(Entry::Endpoint { key: endpoint.key, value: Some(endpoint.to_policy()) })?;
            if !endpoint.is_refused() {
                line(Entry::Targets { key: endpoint.id, value: Some(endpoint.to_targets()) })?;
            }
        }
        for (key, targets) in waiting {
            line(Entry::Targets { key, value: Some(targets) })?;
        }
        file.write_all(b"\n")?;
        file.into_inner()?.sync_data()?;
        std::fs::rename(&beside, path)
    };
    write().inspect_err(|_| {
        // On a full disk a partial file is useless.
        let _removed = std::fs::remove_file(&beside);
    })
}

fn beside(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".new");
    name.into()
}

/// Writes the table after changes, until the tasks are told to end; then once more if it has changed since.
pub(crate) async fn keep(table: Arc<Table>, path: PathBuf, mut position: watch::Receiver<Position>, tasks: Tasks) {
    let mut failing = false;
    let mut again = false;
    loop {
        let stopping = tasks.is_stopping();
        let changed = again || position.has_changed().unwrap_or(false);
        if stopping && !changed {
            return;
        }
        if !changed {
            tokio::select! {
                // Without a watch the table does not change any more.
                changed = position.changed() => if changed.is_err() { tasks.stopping().await },
                () = tasks.stopping() => {}
            }
            rest(&tasks, GATHER).await;
            again = true;
            continue;
        }
        // Read before the table: if the table changes meanwhile, it is written again, from an older position.
        let now = position.borrow_and_update().clone();
        let (copied, file) = (Arc::clone(&table), path.clone());
        let begun = Instant::now();
        match tasks.spawn_blocking(move || write(&file, &copied, &now)).await {
            Ok(Ok(())) => (failing, again) = (false, false),
            Ok(Err(error)) => {
                if !std::mem::replace(&mut failing, true) {
                    let path = path.display();
                    tracing::warn!(
                        "the route table cannot be kept in {path}: {error}; serving goes on, but a restart would need \
                         the control plane"
                    );
                }
                again = true;
            }
            Err(error) => {
                tracing::error!("cannot save the route table: {error}");
                return;
            }
        }
        if stopping {
            return;
        }
        rest(&tasks, if failing { AFTER_FAILURE } else { begun.elapsed() * SHARE }).await;
    }
}

/// Waits, but not longer than the tasks run.
async fn rest(tasks: &Tasks, pause: Duration) {
    tokio::select! {
        () = tokio::time::sleep(pause) => {}
        () = tasks.stopping() => {}
    }
}

#[cfg(test)]
#[path = "saved_tests.rs"]
mod tests;
