//! `rollback`.

use api::{Deployment, RevisionNumber, revision::RevisionView};
use reqwest::Method;
use serde_json::json;

use super::{
    Config, deploy,
    http::{Control, DEPLOYMENTS, found},
    view::who,
    wait::until_serving,
};
use crate::{args, exit::Failure, output::show};

/// Rolls a deployment back to an earlier revision.
///
/// # Errors
/// There is no such revision; an error of the control plane; unless `--no-wait`, the errors of [`until_serving`].
pub async fn rollback(config: &Config, args: &args::Rollback) -> Result<(), Failure> {
    let control = Control::new(config)?;
    let present = control.deployment(&args.deployment).await?;
    let id = present.deployment.id;
    let to = match args.to {
        Some(number) => RevisionNumber(number),
        None => {
            let revisions = control.request(Method::GET, &format!("{DEPLOYMENTS}/{}/revisions", id.0));
            before(&present.deployment, &control.items(revisions).await?)?
        }
    };
    let mut request = control.request(Method::POST, &format!("{DEPLOYMENTS}/{}/rollback", id.0));
    if let Some(etag) = &present.etag {
        request = request.header("if-match", etag);
    }
    let mut changed = found(control.send(request.json(&json!({"revision": to}))).await?).await?;
    let revision = changed.deployment.revision;
    let unchanged = present.deployment.revision == revision;
    if !args.no_wait {
        changed = until_serving(&control, config, id, revision, args.patience.wait_timeout).await?;
    }
    show(args.output.output, &changed.raw, || deploy::sentence(&changed, unchanged))
}

/// The revision that serves while another one is wanted; otherwise the newest one below the wanted one.
fn before(deployment: &Deployment, revisions: &[RevisionView]) -> Result<RevisionNumber, Failure> {
    let wanted = deployment.revision;
    let mut earlier: Vec<_> = revisions.iter().map(|revision| revision.number).filter(|it| *it < wanted).collect();
    earlier.sort_unstable();
    let serving = deployment.status.serving_revision.filter(|serving| *serving != wanted);
    serving.or(earlier.last().copied()).ok_or_else(|| {
        let next = format!("See its revisions: modelway describe {}", deployment.id);
        Failure::failed(format!("{} has no revision before {wanted}", who(deployment))).next(next)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_revision_that_serves_comes_before_the_one_below() {
        let deployment = |revision: u32, serving: Option<u32>| -> Deployment {
            serde_json::from_value(json!({
                "id": 1, "model": {"version": "1", "type": "single", "bucket": "/m", "prefix": ""}, "replicas": 1,
                "request_timeout_ms": 1, "idempotent": true, "status": "active", "ready_replicas": 1, "url": null,
                "serving_revision": serving, "revision": revision,
                "created_at": "2025-03-09T02:16:33.792720", "updated_at": "2025-03-09T02:16:33.792720"
            }))
            .expect("a deployment")
        };
        let kept: Vec<RevisionView> = [5, 4, 2]
            .map(|number: u32| {
                serde_json::from_value(json!({
                    "number": number, "wanted": false, "serving": false, "model_version": "1",
                    "content": {"artifact": {"uris": [], "digest": null}}, "created_at": "2025-03-09T02:16:33.792720"
                }))
                .expect("a revision")
            })
            .into();
        let goes_to = |revision, serving| before(&deployment(revision, serving), &kept).ok().map(|it| it.0);
        assert_eq!(goes_to(5, Some(2)), Some(2), "5 failed");
        assert_eq!(goes_to(5, Some(5)), Some(4));
        assert_eq!(goes_to(4, Some(5)), Some(5), "going back to 4 failed");
        assert_eq!(goes_to(2, Some(2)), None);
    }
}
