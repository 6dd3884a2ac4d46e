#!/usr/bin/env bash
# Triton's own binary, out of the wheel of PyTriton, with its Python backend.
set -euo pipefail
folder=$BENCH_RUN/triton
packages=$BENCH_VENV/lib/python3.11/site-packages
triton=$packages/pytriton/tritonserver
rm -rf "$folder"
mkdir -p "$folder/repository/$BENCH_MODEL/1" "$folder/backends"
cp -r "$triton/backends/python" "$folder/backends/"
cp "$triton/python_backend_stubs/3.11/triton_python_backend_stub" "$folder/backends/python/"
cp "$BENCH_SERVERS/triton_model.py" "$folder/repository/$BENCH_MODEL/1/model.py"
PYTHONPATH=$BENCH_SERVERS /usr/bin/python3.11 >"$folder/repository/$BENCH_MODEL/config.pbtxt" <<'PYTHON'
from common import BATCH, BATCH_DELAY_MS, INPUTS, META, OUTPUT

inputs = ", ".join(f'{{name: "{name}" data_type: TYPE_{datatype} dims: {shape}}}' for name, (datatype, shape) in INPUTS.items())
print(f'backend: "python"\nmax_batch_size: {BATCH or 1}\ninput [{inputs}]')
print(f'output [{{name: "{OUTPUT}" data_type: TYPE_FP32 dims: [{META["output_size"]}]}}]')
print("instance_group [{kind: KIND_CPU count: 1}]")
if BATCH:
    print(f"dynamic_batching {{ max_queue_delay_microseconds: {BATCH_DELAY_MS * 1000} }}")
PYTHON
export BENCH_PACKAGES=$packages LD_LIBRARY_PATH=$packages/nvidia_pytriton.libs:/usr/lib/$(uname -m)-linux-gnu
exec "$triton/bin/tritonserver" --model-repository="$folder/repository" --backend-directory="$folder/backends" \
    --http-address=127.0.0.1 --http-port="$BENCH_PORT" --grpc-port=$((BENCH_PORT + 1)) --metrics-port=$((BENCH_PORT + 2)) \
    --log-verbose=0 --log-info=false
