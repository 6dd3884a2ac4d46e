//! A steady load whose every answer is looked at.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, PoisonError, RwLock,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use serde_json::Value;
use tokio::task::JoinHandle;

use crate::{client, until};

/// Callers that send one request after the other until stopped.
#[derive(Debug)]
pub struct Load {
    urls: Arc<RwLock<Vec<String>>>,
    stop: Arc<AtomicBool>,
    answered: Arc<AtomicU64>,
    callers: Vec<JoinHandle<BTreeMap<String, u64>>>,
}

/// What a load saw.
#[derive(Clone, Debug, Default)]
pub struct LoadReport {
    /// How many requests were answered as they should be.
    pub ok: u64,
    /// What went wrong, and how often.
    pub failures: BTreeMap<String, u64>,
}

impl Load {
    /// Starts `callers` that POST `body` to `url`, a request every 5 ms each.
    #[must_use]
    pub fn start(url: &str, body: &Value, callers: usize) -> Self {
        Self::balanced(&[url.to_owned()], body, callers)
    }

    /// The same to several addresses of one service. As a load balancer does, a caller that finds one closed tries the
    /// next; that is no failure unless all are closed.
    #[must_use]
    pub fn balanced(urls: &[String], body: &Value, callers: usize) -> Self {
        let urls = Arc::new(RwLock::new(urls.to_vec()));
        let stop = Arc::new(AtomicBool::new(false));
        let answered = Arc::new(AtomicU64::new(0));
        let callers = (0..callers)
            .map(|_| tokio::spawn(call(Arc::clone(&urls), body.to_string(), Arc::clone(&stop), Arc::clone(&answered))))
            .collect();
        Self { urls, stop, answered, callers }
    }

    /// Sends the next requests to these addresses instead.
    pub fn turn_to(&self, urls: &[String]) {
        *self.urls.write().unwrap_or_else(PoisonError::into_inner) = urls.to_vec();
    }

    /// Waits until `more` further requests were answered well.
    pub async fn answers(&self, more: u64) {
        let goal = self.answered.load(Ordering::Relaxed) + more;
        until("the load is answered", || async { self.answered.load(Ordering::Relaxed) >= goal }).await;
    }

    /// Ends the load and says what it saw.
    pub async fn stop(self) -> LoadReport {
        self.stop.store(true, Ordering::Relaxed);
        let mut report = LoadReport { ok: self.answered.load(Ordering::Relaxed), ..LoadReport::default() };
        for caller in self.callers {
            for (failure, count) in caller.await.unwrap() {
                *report.failures.entry(failure).or_default() += count;
            }
        }
        report
    }
}

impl LoadReport {
    /// Fails the test unless every request was answered well, and there were some.
    pub fn assert_flawless(&self) {
        assert!(self.ok > 0, "the load was never answered");
        assert!(self.failures.is_empty(), "{} answered, but: {:#?}", self.ok, self.failures);
    }
}

async fn call(
    urls: Arc<RwLock<Vec<String>>>,
    body: String,
    stop: Arc<AtomicBool>,
    answered: Arc<AtomicU64>,
) -> BTreeMap<String, u64> {
    let client = client();
    let send = |url: &str| client.post(url).header("content-type", "application/json").body(body.clone()).send();
    let mut failures = BTreeMap::new();
    while !stop.load(Ordering::Relaxed) {
        let urls = urls.read().unwrap_or_else(PoisonError::into_inner).clone();
        let mut answer = send(&urls[0]).await;
        for url in &urls[1..] {
            if answer.as_ref().is_err_and(reqwest::Error::is_connect) {
                answer = send(url).await;
            }
        }
        let failure = match answer {
            Err(error) => Some(format!("{error:?}")),
            Ok(answer) => {
                let status = answer.status();
                match answer.text().await {
                    Ok(text) if status.is_success() && text.contains("outputs") => None,
                    Ok(text) => Some(format!("{status}: {text}")),
                    Err(error) => Some(format!("{error:?}")),
                }
            }
        };
        match failure {
            None => {
                answered.fetch_add(1, Ordering::Relaxed);
            }
            Some(failure) => *failures.entry(failure).or_default() += 1,
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    failures
}
