#!/usr/bin/env bash
# A real MLflow for the tests, in a virtual environment of its own. A minute or two the first time.
#
#   scripts/mlflow.sh                     installs it, prints the path of its Python
#   scripts/mlflow.sh serve PORT FOLDER   the same, and runs a tracking server over FOLDER until its input ends;
#                                         without FOLDER over a temporary one
set -euo pipefail

cache=${MODELWAY_CACHE:-$HOME/.cache/modelway}
venv=$cache/mlflow
# What logs the models is what serves the books, so that both are of one version.
packages=('mlflow==3.17.2' 'scikit-learn==1.9.1' 'pandas==3.1.1' 'onnx==1.23.2' 'onnxruntime==1.31.1' 'skl2onnx==1.20.0'
    'xgboost-cpu==3.2.0')

install() {
    python3 -m venv --clear "$venv"
    echo "mlflow.sh: installing ${packages[*]}" >&2
    "$venv/bin/pip" install --quiet --disable-pip-version-check "${packages[@]}" >&2
    echo "${packages[*]}" >"$venv/.packages"
}

# The stamp is written last, so that an interrupted installation begins again.
if [ "$(cat "$venv/.packages" 2>/dev/null)" != "${packages[*]}" ]; then
    mkdir -p "$cache"
    exec 9>"$cache/.mlflow.lock"
    flock 9
    [ "$(cat "$venv/.packages" 2>/dev/null)" = "${packages[*]}" ] || install
    exec 9>&-
fi
if [ "${1:-}" != serve ]; then
    echo "$venv/bin/python"
    exit
fi

# The server is several processes, and whoever started this may die without a word: the end of the input ends all.
port=$2
folder=${3:-$(mktemp -d -t modelway-mlflow.XXXXXX)}
mkdir -p "$folder/artifacts"
export PATH=$venv/bin:$PATH MLFLOW_DISABLE_TELEMETRY=true
setsid "$venv/bin/mlflow" server --host 127.0.0.1 --port "$port" --workers 1 \
    --backend-store-uri "sqlite:///$folder/books.db" --artifacts-destination "$folder/artifacts" \
    </dev/null >"$folder/log" 2>&1 &
server=$!
trap 'kill -TERM -- -$server 2>/dev/null || true; wait $server || true; [ -n "${3:-}" ] || rm -rf "$folder"' EXIT
cat >/dev/null
