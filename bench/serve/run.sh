#!/usr/bin/env bash
# Measures the model server beside all others, in one run, and writes docs/benchmarks.md: bench/serve/run.sh [--seconds N]
# Fails if a target is missed, saying which. About half an hour on two cores that do nothing else.
set -euo pipefail
cd "$(dirname "$0")/../.."

cache=${MODELWAY_CACHE:-$HOME/.cache/modelway}
export MODELWAY_CACHE=$cache CARGO_TARGET_DIR=${CARGO_TARGET_DIR:-$cache/target}
# The environments' files are compiled once, not at each start.
unset PYTHONDONTWRITEBYTECODE
work=$cache/bench-serve
results=bench/results/serve.json

[ -x bin/modelway ] || { echo "bin/modelway is missing: make build makes it" >&2; exit 1; }
bench/serve/install.sh
cargo build --release --quiet --locked --package modelway-modelserver --examples
if [ ! -e "$work/meta.json" ] || [ bench/serve/models.py -nt "$work/meta.json" ]; then
    "$cache/peers/venvs/models/bin/python" bench/serve/models.py "$work"
fi
if [ ! -e "$work/iris-mlflow/MLmodel" ]; then
    "$cache/peers/venvs/mlflow/bin/python" bench/serve/mlflow_models.py "$work"
fi
mkdir -p bench/results
python3 bench/serve/bench.py --out "$results" "$@"
exec python3 bench/serve/report.py "$results" docs/benchmarks.md
