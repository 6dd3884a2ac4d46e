//! `strays`.

use std::{
    io::{self, IsTerminal as _},
    time::{Duration, Instant},
};

use api::{
    ReplicaId, Timestamp,
    stray::{EndStrays, Stray, StrayReason},
};
use base::Clock;
use reqwest::Method;
use serde_json::{Value, json};

use super::{Config, http::Control};
use crate::{
    args,
    exit::{Exit, Failure},
    output::{Table, age, count, print, show, tell},
};

const STRAYS: &str = "/v1/strays";
/// Interval of checking whether they have ended.
const LOOK: Duration = Duration::from_millis(500);

/// Lists replicas that belong to another database; ends the given ones.
///
/// # Errors
/// One that does not exist, an error of the control plane, a declined confirmation, or a timeout.
pub async fn strays(config: &Config, args: &args::Strays) -> Result<(), Failure> {
    let control = Control::new(config)?;
    let strays = known(&control).await?;
    if args.end.is_empty() && !args.end_all {
        let now = Clock::system().now().into();
        return show(args.output.output, &json!({"items": strays}), || match strays.as_slice() {
            [] => "Every replica belongs to this database.\n".to_owned(),
            strays => table(strays, now),
        });
    }
    let doomed: Vec<ReplicaId> = match args.end_all {
        true => strays.iter().map(|stray| stray.replica.clone()).collect(),
        false => args.end.iter().cloned().map(ReplicaId).collect(),
    };
    if doomed.is_empty() {
        return print("There is nothing to end: every replica belongs to this database.\n");
    }
    if !args.yes && io::stdin().is_terminal() && !confirmed(&doomed)? {
        return Err(Failure::failed("nothing was ended"));
    }
    let request = control.request(Method::POST, &format!("{STRAYS}/end")).json(&EndStrays { replicas: doomed.clone() });
    let hint = |failure: Failure| match failure.exit == Exit::NotFound {
        true => failure.next("See which there are: modelway strays"),
        false => failure,
    };
    control.send(request).await.map_err(hint)?;
    until_ended(&control, &doomed, Instant::now() + args.patience.wait_timeout).await?;
    show(args.output.output, &json!({"ended": doomed}), || format!("{} ended\n", count(doomed.len(), "replica")))
}

async fn known(control: &Control) -> Result<Vec<Stray>, Failure> {
    let items: Value = control.get(STRAYS).await?;
    serde_json::from_value(items["items"].clone()).map_err(|error| Failure::of(&error))
}

fn confirmed(doomed: &[ReplicaId]) -> Result<bool, Failure> {
    let names: Vec<_> = doomed.iter().map(ToString::to_string).collect();
    tell(format!("End {}? Another database may still use them. [y/N]", names.join(", ")));
    let mut answer = String::new();
    io::stdin().read_line(&mut answer)?;
    Ok(matches!(answer.trim(), "y" | "Y" | "yes"))
}

async fn until_ended(control: &Control, doomed: &[ReplicaId], end: Instant) -> Result<(), Failure> {
    loop {
        let left = known(control).await?;
        if !left.iter().any(|stray| stray.ending && doomed.contains(&stray.replica)) {
            return Ok(());
        }
        if Instant::now() > end {
            return Err(Failure::new(Exit::TimedOut, "the replicas have not ended yet; their worker continues")
                .next("A worker must run where they run. See what is left: modelway strays"));
        }
        tokio::time::sleep(LOOK).await;
    }
}

fn table(strays: &[Stray], now: Timestamp) -> String {
    let mut table = Table::new(["REPLICA", "STATE", "BELONGS TO", "STARTED", "KNOWN FOR"]);
    for stray in strays {
        table.row([
            stray.replica.to_string(),
            if stray.ending { "ending".to_owned() } else { stray.state.to_string() },
            owner(stray),
            stray.started_at.map_or_else(|| "-".to_owned(), |at| age(now.since(at))),
            age(now.since(stray.since)),
        ]);
    }
    table.text()
}

fn owner(stray: &Stray) -> String {
    match (stray.reason, &stray.epoch) {
        (StrayReason::OtherDatabase, Some(epoch)) => format!("database {}", epoch.0),
        (StrayReason::OtherDatabase, None) => "another database".to_owned(),
        (StrayReason::UnknownDeployment, _) => format!("{}, which this database does not have", stray.deployment),
        (StrayReason::OtherPlacement, _) => format!("{}, which is placed elsewhere", stray.deployment),
        (StrayReason::UnknownRevision, _) => {
            format!("{} revision {}, which this database does not have", stray.deployment, stray.revision)
        }
    }
}
