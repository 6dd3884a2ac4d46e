//! `scale`.

use reqwest::Method;
use serde_json::json;

use super::{
    Config,
    http::{Control, DEPLOYMENTS, found},
    view::who,
    wait::until_serving,
};
use crate::{
    args,
    exit::Failure,
    output::{count, show},
};

/// Sets the number of replicas of a deployment.
///
/// # Errors
/// An error of the control plane; with `--wait`, the errors of [`until_serving`].
pub async fn scale(config: &Config, args: &args::Scale) -> Result<(), Failure> {
    let control = Control::new(config)?;
    let id = control.deployment(&args.deployment).await?.deployment.id;
    let body = json!({"replicas": args.replicas});
    let request = control.request(Method::PUT, &format!("{DEPLOYMENTS}/{}/scale", id.0)).json(&body);
    let mut scaled = found(control.send(request).await?).await?;
    let mut verb = "will have";
    if args.wait {
        let revision = scaled.deployment.revision;
        scaled = until_serving(&control, config, id, revision, args.patience.wait_timeout).await?;
        verb = "has";
    }
    show(args.output.output, &scaled.raw, || {
        format!("{} {verb} {}\n", who(&scaled.deployment), count(args.replicas as usize, "replica"))
    })
}
