//! `events` and `logs`.

use std::time::Duration;

use api::{DeploymentId, Event};
use base::visible;
use futures::StreamExt as _;
use reqwest::Method;
use serde_json::Value;

use super::{
    Config,
    http::{Control, DEPLOYMENTS},
    view,
};
use crate::{
    args,
    exit::{Exit, Failure},
    output::{Format, json_line, print, show},
};

/// Interval of checking for new events.
const LOOK: Duration = Duration::from_millis(500);

/// Shows the events of one deployment or of all.
///
/// # Errors
/// An error of the control plane.
pub async fn events(config: &Config, args: &args::Events) -> Result<(), Failure> {
    let control = Control::new(config)?;
    let path = match &args.deployment {
        None => "/v1/events".to_owned(),
        Some(who) => {
            // The events of a removed deployment still exist, so a number is used without a lookup.
            let id = match who.parse::<DeploymentId>() {
                Ok(id) => control.named_like(who, id).await?.map_or(id, |named| named.deployment.id),
                Err(_) => control.deployment(who).await?.deployment.id,
            };
            format!("{DEPLOYMENTS}/{}/events", id.0)
        }
    };
    let all = args.deployment.is_none();
    let items = control.all(&path, &[]).await?;
    let mut events = read(items.clone())?;
    if !args.follow {
        return show(args.output.output, &serde_json::json!({"items": items}), || match events.as_slice() {
            [] => "There are no events yet.\n".to_owned(),
            events => view::event_table(events, all),
        });
    }
    let mut newest = 0;
    loop {
        for event in &events {
            newest = newest.max(event.id);
            print(line(event, all, args.output.output)?)?;
        }
        tokio::time::sleep(LOOK).await;
        events = read(control.all_after(&path, newest).await?)?;
    }
}

impl Control {
    async fn all_after(&self, path: &str, after: i64) -> Result<Vec<Value>, Failure> {
        let request = self.request(Method::GET, path).query(&[("after", after)]);
        let mut page: Value = self.json(request).await?;
        Ok(page["items"].as_array_mut().map(std::mem::take).unwrap_or_default())
    }
}

fn read(items: Vec<Value>) -> Result<Vec<Event>, Failure> {
    serde_json::from_value(Value::Array(items)).map_err(|error| Failure::of(&error))
}

/// One event as it is printed while following: one line of JSON, so that a program can read it at once.
fn line(event: &Event, all: bool, format: Format) -> Result<String, Failure> {
    match format {
        Format::Table => Ok(view::event_line(event, all)),
        Format::Json => json_line(event),
        Format::Yaml => Ok(format!("---\n{}", crate::output::yaml(event)?)),
    }
}

/// Shows the logs of the replicas of a deployment.
///
/// # Errors
/// An error of the control plane or of the worker.
pub async fn logs(config: &Config, args: &args::Logs) -> Result<(), Failure> {
    let control = Control::new(config)?;
    let id = control.deployment(&args.deployment).await?.deployment.id;
    let mut request = control.request(Method::GET, &format!("{DEPLOYMENTS}/{}/logs", id.0));
    request = request.query(&[("tail", args.tail.to_string()), ("follow", args.follow.to_string())]);
    if let Some(replica) = &args.replica {
        request = request.query(&[("replica", replica)]);
    }
    let response = if args.follow { control.open(request).await? } else { control.send(request).await? };
    let mut lines = response.bytes_stream();
    let mut pieces = visible::Pieces::default();
    while let Some(chunk) = lines.next().await {
        let chunk = chunk.map_err(|error| {
            Failure::new(
                Exit::Unreachable,
                format!("the connection for the log broke: {}", super::http::root_cause(&error)),
            )
            .next("Ask again: modelway logs")
        })?;
        print(pieces.next(&chunk))?;
    }
    print(pieces.end())
}
