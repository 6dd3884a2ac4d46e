//! The resource usage of replicas, requested from them for a scrape.

use std::{
    sync::{Arc, Mutex, PoisonError, Weak},
    time::Duration,
};

use api::replica::SelfReport;
use tokio::time::Instant;

use super::survey;
use crate::{
    table::{replica::Replica, routes::Table},
    upstream::probe,
};

/// How long answers are cached.
const FRESH: Duration = Duration::from_secs(5);

/// The usage of one replica.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Usage {
    pub(crate) cpu_seconds: f64,
    pub(crate) memory_bytes: u64,
}

type Answers = Vec<(String, Weak<Replica>, Usage)>;

/// The last answers.
#[derive(Debug, Default)]
pub(crate) struct Usages(Mutex<Option<(Instant, Answers)>>);

/// Deployment, replica and usage of the replicas that answered.
pub(crate) async fn collect(usages: &Usages, table: &Table) -> Vec<(String, String, Usage)> {
    let known = usages.0.lock().unwrap_or_else(PoisonError::into_inner).clone();
    let answers = match known {
        Some((at, answers)) if at.elapsed() < FRESH => answers,
        Some(_) | None => {
            let survey = survey::of_all(table, |replica| async move { ask(&replica).await }).await;
            let given = survey.answers.into_iter();
            let answers: Answers =
                given.filter_map(|(of, usage)| Some((of.deployment, Arc::downgrade(&of.replica), usage?))).collect();
            let mut kept = usages.0.lock().unwrap_or_else(PoisonError::into_inner);
            *kept = Some((Instant::now(), answers.clone()));
            answers
        }
    };
    let living = answers.into_iter().filter_map(|(label, replica, usage)| Some((label, replica.upgrade()?, usage)));
    living.map(|(label, replica, usage)| (label, replica.id.clone(), usage)).collect()
}

async fn ask(replica: &Replica) -> Option<Usage> {
    let report = probe::report(replica, survey::PATIENCE).await?;
    let report: SelfReport = serde_json::from_slice(&report).ok()?;
    #[allow(clippy::cast_precision_loss, reason = "microseconds of CPU stay below 2^53 for 285 years")]
    let cpu_seconds = report.cpu_micros as f64 / 1e6;
    Some(Usage { cpu_seconds, memory_bytes: report.memory_bytes })
}
