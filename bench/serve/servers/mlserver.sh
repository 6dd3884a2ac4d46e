#!/usr/bin/env bash
# MLServer with one worker process: it refuses more requests than it can queue, so that its defaults stand.
set -euo pipefail
folder=$BENCH_RUN/mlserver
rm -rf "$folder"
mkdir -p "$folder/model"
cat >"$folder/settings.json" <<JSON
{"debug": false, "host": "127.0.0.1", "http_port": $BENCH_PORT, "grpc_port": $((BENCH_PORT + 1)),
 "metrics_port": $((BENCH_PORT + 2)), "parallel_workers": 1}
JSON
batching=""
if [ "$BENCH_BATCH" != 0 ]; then batching=", \"max_batch_size\": $BENCH_BATCH, \"max_batch_time\": 0.01"; fi
echo "{\"name\": \"$BENCH_MODEL\", \"implementation\": \"mlserver_onnx.OnnxModel\"$batching}" >"$folder/model/model-settings.json"
export PYTHONPATH=$BENCH_SERVERS MLSERVER_LOGGING_LEVEL=WARNING
exec "$BENCH_VENV/bin/mlserver" start "$folder"
