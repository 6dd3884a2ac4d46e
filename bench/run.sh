#!/usr/bin/env bash
# Takes all measurements and fails if a target is missed, saying which: bench/run.sh [RESULTS_DIRECTORY]
set -euo pipefail
cd "$(dirname "$0")/.."

results=${1:-bench/results}
cache=${MODELWAY_CACHE:-$HOME/.cache/modelway}
export CARGO_TARGET_DIR=${CARGO_TARGET_DIR:-$cache/target}

if [ ! -x bin/modelway ] || [ ! -e "$cache/models/iris/1/model.onnx" ]; then
    echo "bin/modelway or the sample models are missing: make bench makes them first" >&2
    exit 1
fi
mkdir -p "$results"
rm -f "$results"/{gateway,deploy,control,all}.json

# A measurement that breaks off must not keep the others from being taken; bench/report.py sees that it is missing.
echo "1/3 the gateway beside nginx" >&2
bench/gateway/run.sh --out "$results/gateway.json" >"$results/gateway.txt" || true
echo "2/3 from POST to a prediction, and idle memory" >&2
python3 bench/deploy.py >"$results/deploy.json" || true
echo "3/3 the control plane with 10,000 deployments" >&2
python3 bench/control.py >"$results/control.json" || true
exec python3 bench/report.py "$results"
