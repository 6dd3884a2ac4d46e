//! Checks whether the files of a model have changed since the wanted revision of its deployment found them.

use api::{registry::ModelContent, revision::RevisionView};
use reqwest::Method;

use super::{
    http::{Control, DEPLOYMENTS, Found},
    source,
};
use crate::exit::Failure;

/// The result of the check.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Change {
    /// They are those of the revision.
    No,
    /// They have changed, or those of the revision did not work. The text is a part of a sentence.
    Yes(String),
    /// It cannot be determined here. The text is a part of a sentence.
    Unknown(String),
}

/// Compares the files at the location of the model with those of the wanted revision.
///
/// # Errors
/// An error of the control plane.
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
    // With a digest in the specification, the specification itself would have changed.
    let ModelContent::Artifact { uris, digest: None } = &revision.content else { return Ok(Change::No) };
    let Some(pin) = revision.pin else {
        let failed = deployment.status.error.as_ref().is_some_and(|error| error.revision == number);
        return Ok(if failed { Change::Yes(format!("revision {number} has failed")) } else { Change::No });
    };
    let place = uris.last().map_or("", String::as_str);
    let seen = match source::see(sources, uris).await {
        Ok(seen) => seen,
        Err(reason) => {
            return Ok(Change::Unknown(format!("cannot tell whether {place} has changed ({reason})")));
        }
    };
    let same = match (seen.digest, seen.fingerprint, pin.files.fingerprint) {
        (Some(digest), ..) => digest == pin.files.digest,
        (None, Some(now), Some(then)) => now == then,
        (None, ..) => {
            return Ok(Change::Unknown(format!("cannot tell whether {place} has changed: it has no ETag")));
        }
    };
    Ok(if same { Change::No } else { Change::Yes(format!("{place} has changed since revision {number} found it")) })
}
