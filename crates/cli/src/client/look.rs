//! `list`, `get`, `describe`.

use api::{Deployment, Event, Timestamp, revision::RevisionView};
use base::Clock;
use reqwest::Method;
use serde_json::{Value, json};

use super::{
    Config,
    http::{Control, DEPLOYMENTS},
    view,
};
use crate::{args, exit::Failure, output::show};

/// The number of events at the end of a description.
const LAST_EVENTS: &str = "10";

fn now() -> Timestamp {
    Clock::system().now().into()
}

/// Lists all matching deployments.
///
/// # Errors
/// An error of the control plane.
pub async fn list(config: &Config, args: &args::List) -> Result<(), Failure> {
    let control = Control::new(config)?;
    let mut query: Vec<(&str, String)> = Vec::new();
    query.extend(args.status.clone().map(|status| ("status", status)));
    query.extend(args.name.clone().map(|name| ("name", name)));
    query.extend(args.model.clone().map(|model| ("model", model)));
    query.extend(args.label.iter().map(|(key, value)| ("label", format!("{key}={value}"))));
    let items = control.all(DEPLOYMENTS, &query).await?;
    let deployments: Vec<Deployment> =
        serde_json::from_value(Value::Array(items.clone())).map_err(|error| Failure::of(&error))?;
    show(args.output.output, &json!({"items": items}), || match deployments.as_slice() {
        [] if query.is_empty() => "Nothing is deployed. Begin with: modelway deploy PATH --name NAME\n".to_owned(),
        [] => "No deployment matches.\n".to_owned(),
        deployments => view::table(deployments, now()),
    })
}

/// Shows one deployment on one line.
///
/// # Errors
/// It does not exist, or an error of the control plane.
pub async fn get(config: &Config, args: &args::Get) -> Result<(), Failure> {
    let found = Control::new(config)?.deployment(&args.deployment).await?;
    show(args.output.output, &found.raw, || {
        let line = view::table(std::slice::from_ref(&found.deployment), now());
        line + &view::trouble(&found.deployment)
    })
}

/// Shows everything about one deployment.
///
/// # Errors
/// It does not exist, or an error of the control plane.
pub async fn describe(config: &Config, args: &args::Describe) -> Result<(), Failure> {
    let control = Control::new(config)?;
    let found = control.deployment(&args.deployment).await?;
    let path = format!("{DEPLOYMENTS}/{}", found.deployment.id.0);
    let newest =
        control.request(Method::GET, &format!("{path}/events")).query(&[("order", "desc"), ("limit", LAST_EVENTS)]);
    let mut events: Vec<Event> = control.items(newest).await?;
    events.reverse();
    let revisions: Vec<RevisionView> =
        control.items(control.request(Method::GET, &format!("{path}/revisions"))).await?;
    let whole = json!({"deployment": found.raw, "revisions": revisions, "events": events});
    show(args.output.output, &whole, || view::describe(&found.deployment, &revisions, &events, now()))
}
