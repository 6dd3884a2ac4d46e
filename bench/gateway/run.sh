#!/bin/sh
# Builds the gateway and measures it beside nginx. Further arguments go to bench.py.
set -eu
cd "$(dirname "$0")/../.."
cargo build --release --quiet -p modelway-gateway --example gateway_bench
target=${CARGO_TARGET_DIR:-target}
exec python3 bench/gateway/bench.py --gateway "$target/release/examples/gateway_bench" "$@"
