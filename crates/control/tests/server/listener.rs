//! Clients that are silent, slow, half gone or too many.

use base::serve::conformance::{Subject, suite};
use modelway_control::Config;

use crate::support::plane_with;

#[tokio::test]
async fn its_listener_does_what_every_listener_does() {
    let plane = plane_with(Config { max_connections: 50, header_timeout_ms: 500, ..Config::default() }).await;
    suite(Subject { address: plane.address, connections: 50, path: "/health/live" }).await;
}
