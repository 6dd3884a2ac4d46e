//! Words that several commands share.

use api::deployment::MAX_REPLICAS;
use clap::Args;

use crate::output::Format;

/// Where the two planes answer.
#[derive(Clone, Debug, Default, Args)]
pub struct Connection {
    /// URL of the control plane [default: http://127.0.0.1:8081]
    #[arg(long, value_name = "URL", help_heading = "Connection")]
    pub control_url: Option<String>,
    /// URL of the gateway [default: http://127.0.0.1:8080]
    #[arg(long, value_name = "URL", help_heading = "Connection")]
    pub gateway_url: Option<String>,
}

/// The form of the output.
#[derive(Clone, Copy, Debug, Default, Args)]
pub struct Output {
    /// Output format: table, json or yaml
    #[arg(short, long, value_enum, default_value_t, value_name = "FORMAT", hide_possible_values = true)]
    pub output: Format,
}

/// How long to wait for what was asked for.
#[derive(Clone, Debug, Args)]
pub struct Patience {
    /// Maximum time to wait, for example 90s or 5m
    #[arg(long, default_value = "5m", value_name = "TIME", value_parser = duration)]
    pub wait_timeout: std::time::Duration,
}

/// `KEY=VALUE`.
pub(super) fn pair(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((key, value)) if !key.is_empty() => Ok((key.to_owned(), value.to_owned())),
        Some(_) | None => Err("write KEY=VALUE".to_owned()),
    }
}

/// A number of replicas, as the control plane takes it.
pub(super) fn replicas(text: &str) -> Result<u32, String> {
    text.parse()
        .ok()
        .filter(|replicas| *replicas <= MAX_REPLICAS)
        .ok_or_else(|| format!("write a whole number from 0 to {MAX_REPLICAS}"))
}

/// A number and its unit: `250ms`, `90s`, `5m`, `1h`; a bare number is seconds.
pub(crate) fn duration(text: &str) -> Result<std::time::Duration, String> {
    let wrong = || format!("`{text}` is not a time: write a number and a unit, as in 250ms, 90s, 5m or 1h");
    let split = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(split);
    let millis_per_unit: u64 = match unit {
        "ms" => 1,
        "" | "s" => 1_000,
        "m" => 60_000,
        "h" => 3_600_000,
        _ => return Err(wrong()),
    };
    let number: u64 = number.parse().map_err(|_| wrong())?;
    number.checked_mul(millis_per_unit).map(std::time::Duration::from_millis).ok_or_else(wrong)
}
