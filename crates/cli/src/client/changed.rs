//! Whether a model's files have changed since the wanted revision of its deployment found them.

use api::{registry::ModelContent, revision::RevisionView};
use reqwest::Method;

use super::{
    http::{Control, DEPLOYMENTS, Found},
    source,
};
use crate::exit::Failure;

/// What is known of a model's files.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Change {
    /// They are those of the revision.
    No,
    /// They are others, or those of the revision did not work. Half a sentence.
    Yes(String),
    /// It cannot be told from here. Half a sentence.
    Unknown(String),
}

/// Compares the files at the model's place with those that the wanted revision serves.
///
/// # Errors
/// The control plane's refusal.
pub(super) async fn since_deployed(
    control: &Control,
    sources: &artifact::Config,
    deployed: &Found,
) -> Result<Change, Failure> {
    let deployment = &deployed.deployment;
    let request = control.request(Method::GET, &format!("{DEPLOYMENTS}/{}/revisions", deployment.id.0));
    let revisions: Vec<RevisionView> = control.items(request).await?;
    let number = deployment.revision;
    let Some(revision) = revisions.into_iter().find(|revision| revision.number == number) else {
        return Ok(Change::No);
    };
    // With a digest of its own, the specification would have changed.
    let ModelContent::Artifact { uris, digest: None } = &revision.content else { return Ok(Change::No) };
    let Some(pin) = revision.pin else {
        let failed = deployment.status.error.as_ref().is_some_and(|error| error.revision == number);
        return Ok(if failed { Change::Yes(format!("revision {number} has failed")) } else { Change::No });
    };
    let place = uris.last().map_or("", String::as_str);
    let seen = match source::see(sources, uris).await {
        Ok(seen) => seen,
        Err(reason) => {
            return Ok(Change::Unknown(format!("it is not known here whether {place} has changed ({reason})")));
        }
    };
    let same = match (seen.digest, seen.fingerprint, pin.files.fingerprint) {
        (Some(digest), ..) => digest == pin.files.digest,
        (None, Some(now), Some(then)) => now == then,
        (None, ..) => {
            return Ok(Change::Unknown(format!("{place} does not tell whether it has changed: it gives no ETag")));
        }
    };
    Ok(if same { Change::No } else { Change::Yes(format!("{place} has changed since revision {number} found it")) })
}
