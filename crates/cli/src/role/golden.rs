//! `golden record`: records the current answers of a model as the expected ones.

use crate::{
    args::GoldenRecord,
    exit::Failure,
    output::{print, tell},
    settings::Settings,
};

/// Sends requests to a model and writes its answers next to it.
///
/// # Errors
/// A model that cannot be loaded, a refused request, a file that cannot be written.
pub async fn record(settings: &Settings, args: &GoldenRecord) -> Result<(), Failure> {
    let config = modelserver::Config { source: Some(args.source.clone()), ..settings.serve.clone() };
    let file = modelserver::golden::record(&config, &args.request).await.map_err(|error| Failure::of(&error))?;
    print(format!("{}\n", file.display()))?;
    tell("A replica that gives other answers will not become ready.");
    Ok(())
}
