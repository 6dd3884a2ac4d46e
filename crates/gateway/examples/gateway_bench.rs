//! A gateway with many routes, for `bench/gateway`: `gateway_bench ADDR UPSTREAM ROUTES FOLDER [split] [log]`.
//!
//! Every route leads to the one upstream. They come from a table file, as after a restart, so that the gateway
//! under test needs nothing else. With `split` each route has two revisions that share its requests, 90 to 10; with `log`
//! predictions are recorded under FOLDER.

use std::{error::Error, fmt::Write as _};

use base::{Clock, Tasks};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [addr, upstream, routes, folder, parts @ ..] = &*arguments else {
        return Err("usage: gateway_bench ADDR UPSTREAM ROUTES FOLDER [split] [log]".into());
    };
    let with = |part: &str| parts.iter().any(|given| given == part);
    let routes: usize = routes.parse()?;
    let table = std::path::Path::new(folder).join("routes.json");
    let mut lines = format!(r#"{{"form":2,"epoch":"bench","version":{routes},"routes":{}}}"#, 2 * routes);
    let weights: &[u32] = if with("split") { &[90, 10] } else { &[100] };
    for id in 1..=routes {
        let revision = |(number, weight): (usize, &u32)| {
            format!(
                r#"{{"number":{number},"model_version":"v{number}","weight":{weight},"replicas":[{{"id":"md-{id}-r{number}-0","address":"{upstream}"}}]}}"#
            )
        };
        let revisions: Vec<_> = (1..).zip(weights).map(revision).collect();
        write!(
            lines,
            r#"
{{"version":{id},"kind":"endpoint","key":{id},"value":{{"deployment":{id},"name":"model-{id}","request_timeout_ms":30000,"idempotent":true,"log_payloads":"none"}}}}
{{"version":{id},"kind":"targets","key":{id},"value":{{"state":"active","answers_to":"model-{id}","revisions":[{}]}}}}"#,
            revisions.join(",")
        )?;
    }
    lines.push('\n');
    std::fs::write(&table, lines)?;
    base::net::raise_open_files()?;
    let config = modelway_gateway::Config {
        addr: addr.clone(),
        // Nobody listens there: the gateway serves what it has.
        control_url: "http://127.0.0.1:9".to_owned(),
        table_file: Some(table),
        predictions_dir: with("log").then(|| std::path::Path::new(folder).join("predictions")),
        threads: 1,
        ..modelway_gateway::Config::default()
    };
    let listener = base::net::bind(addr, "ADDR").await?;
    modelway_gateway::run(config, listener, Tasks::new(), Clock::system(), |_| unreachable!()).await?;
    Ok(())
}
