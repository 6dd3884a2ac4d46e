#!/usr/bin/env bash
# Makes the sample models, unless they were made by the same scripts and packages: scripts/models.sh [DIR]
set -euo pipefail
cd "$(dirname "$0")/.."

cache=${MODELWAY_CACHE:-$HOME/.cache/modelway}
out=${1:-$cache/models}
stamp=$out/.made-by

mkdir -p "$out"
exec 9>"$out/.lock"
flock 9
made_by=$(cat models/requirements.txt models/export.py models/*/train.py | sha256sum)
if [ -e "$stamp" ] && [ "$(cat "$stamp")" = "$made_by" ]; then
    exit 0
fi
for script in models/*/train.py; do
    "$cache/venv/bin/python" "$script" "$out"
done
echo "$made_by" >"$stamp"
