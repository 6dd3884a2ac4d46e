//! Checks the servers at the configured addresses.

use std::{
    net::IpAddr,
    time::{Duration, SystemTime},
};

use base::{Clock, error::chain};
use reqwest::{Url, header::DATE};
use tokio::net::TcpListener;

use super::Check;
use crate::{client::secret, settings::Settings};

/// Timeout of a request.
const PATIENCE: Duration = Duration::from_secs(3);
/// Maximum clock difference; the date header has whole seconds.
const SKEW_SECONDS: u64 = 5;
/// A gateway writes its table when it changes, and gets data from the control plane every few seconds.
const OLD: Duration = Duration::from_secs(24 * 3_600);

pub(super) async fn checks(settings: &Settings) -> Vec<Check> {
    let mut checks = Vec::new();
    let control = format!("{}/health/ready", settings.client.control_url.trim_end_matches('/'));
    let gateway = format!("{}/v2/health/ready", settings.client.gateway_url.trim_end_matches('/'));
    checks.extend(server("control plane", &settings.control.addr, "control.addr", &control).await);
    checks.extend(server("gateway", &settings.gateway.addr, "gateway.addr", &gateway).await);
    checks.push(table(settings));
    checks
}

/// Whether a server answers, or could be started.
async fn server(name: &'static str, addr: &str, setting: &str, url: &str) -> Vec<Check> {
    let asked = match base::client::builder_for(url).timeout(PATIENCE).build() {
        Ok(client) => client.get(url).send().await,
        Err(error) => Err(error),
    };
    let here = is_here(url, addr);
    let url = &*secret::shown("", url);
    match asked {
        Ok(answer) if answer.status().is_success() => {
            let date = answer.headers().get(DATE).and_then(|date| date.to_str().ok()).map(str::to_owned);
            let mut checks = vec![Check::ok(name, format!("{url} is ready"))];
            checks.extend(date.and_then(|date| clock(&date, url)));
            checks
        }
        Ok(answer) => {
            let detail = format!("{url} answers {}", answer.status());
            vec![Check::failed(name, detail, "Its log says why; if it is another program, choose another address")]
        }
        Err(error) if !here => {
            let detail = format!("{url} does not answer: {}", chain(&error.without_url()));
            let advice = "Start it, or see whether this machine reaches it; client.control_url and client.gateway_url name \
                          the two servers";
            vec![Check::failed(name, detail, advice)]
        }
        Err(_) => match TcpListener::bind(addr).await {
            Ok(_) => vec![Check::ok(name, format!("none runs; {addr} ({setting}) is free"))],
            Err(error) => {
                let detail = format!("none answers, and it cannot listen on {addr} ({setting}): {error}");
                vec![Check::failed(name, detail, "Stop the program that uses it, or choose another address")]
            }
        },
    }
}

/// Whether a server that listens on `addr` on this machine would answer at `url`.
fn is_here(url: &str, addr: &str) -> bool {
    let (Ok(url), Some((host, port))) = (Url::parse(url), addr.rsplit_once(':')) else { return false };
    let bare = |host: &str| host.trim_start_matches('[').trim_end_matches(']').to_ascii_lowercase();
    let (asked, own) = (bare(url.host_str().unwrap_or_default()), bare(host));
    let is = |host: &str, kind: fn(&IpAddr) -> bool| host.parse().is_ok_and(|ip: IpAddr| kind(&ip));
    let loopback = |host: &str| host == "localhost" || is(host, IpAddr::is_loopback);
    let same_port = url.port_or_known_default().is_some_and(|asked| asked.to_string() == port);
    same_port && (asked == own || loopback(&asked) && (loopback(&own) || is(&own, IpAddr::is_unspecified)))
}

/// Compares the clock of another machine with this one.
fn clock(date: &str, url: &str) -> Option<Check> {
    let theirs: SystemTime = jiff::fmt::rfc2822::parse(date).ok()?.timestamp().into();
    let ours = Clock::system().now();
    let apart = ours.duration_since(theirs).or_else(|_| theirs.duration_since(ours)).ok()?.as_secs();
    let detail = format!("{apart} s between this machine's clock and that of {url}");
    Some(match apart <= SKEW_SECONDS {
        true => Check::ok("clocks", detail),
        false => Check::failed("clocks", detail, "Synchronise them: leases and the age of records depend on them"),
    })
}

/// The age of the gateway's saved route table.
fn table(settings: &Settings) -> Check {
    const NAME: &str = "route table";
    let file = settings.gateway.table_file.clone().unwrap_or_default();
    let Ok(changed) = std::fs::metadata(&file).and_then(|found| found.modified()) else {
        return Check::ok(NAME, "no gateway has saved one here");
    };
    let age = Clock::system().now().duration_since(changed).unwrap_or_default();
    let detail = format!("{} was saved {} s ago", file.display(), age.as_secs());
    match age <= OLD {
        true => Check::ok(NAME, detail),
        false => {
            let advice = "This is right if nothing has changed since; if something has, see whether the gateway reaches \
                          the control plane";
            Check::warning(NAME, detail, advice)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::Grade;

    #[tokio::test]
    async fn a_port_is_free_or_another_program_s() {
        let taken = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let addr = taken.local_addr().expect("an address").to_string();
        let ask = async || {
            let url = format!("http://{addr}/health/ready");
            server("control plane", &addr, "control.addr", &url).await.remove(0)
        };
        let found = ask().await;
        assert_eq!(found.grade, Grade::Failed, "{found:?}");
        drop(taken);
        let found = ask().await;
        assert!(found.grade == Grade::Ok && found.detail.contains("is free"), "{found:?}");
    }

    #[tokio::test]
    async fn a_server_elsewhere_that_does_not_answer_is_a_fault() {
        // This name does not resolve.
        let found =
            server("control plane", "127.0.0.1:0", "control.addr", "http://me:sesame@control.invalid:8081/x").await;
        assert!(found[0].grade == Grade::Failed && found[0].detail.contains("does not answer"), "{found:?}");
        assert!(!format!("{found:?}").contains("sesame"), "{found:?}");
    }

    #[test]
    fn an_address_of_this_machine_is_known_by_host_and_port() {
        for (url, addr, here) in [
            ("http://127.0.0.1:8081/x", "127.0.0.1:8081", true),
            ("http://localhost:8081/x", "0.0.0.0:8081", true),
            ("http://[::1]:8081/x", "[::]:8081", true),
            ("http://10.0.0.5:8081/x", "10.0.0.5:8081", true),
            ("http://127.0.0.1:9000/x", "127.0.0.1:8081", false),
            ("http://control.example:8081/x", "127.0.0.1:8081", false),
            ("http://control.example:8081/x", "0.0.0.0:8081", false),
        ] {
            assert_eq!(is_here(url, addr), here, "{url} {addr}");
        }
    }

    #[test]
    fn a_clock_that_is_wrong_is_told_of() {
        let then = clock("Sun, 06 Nov 1994 08:49:37 GMT", "http://x").expect("a date");
        assert_eq!(then.grade, Grade::Failed);
        assert!(clock("yesterday", "http://x").is_none());
    }
}
