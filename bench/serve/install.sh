#!/usr/bin/env bash
# Installs what is measured beside us, each into an environment of its own: bench/serve/install.sh
# Quick when all of it is there. requirements.txt says what.
set -euo pipefail
cd "$(dirname "$0")"

peers=${MODELWAY_CACHE:-$HOME/.cache/modelway}/peers
mkdir -p "$peers/venvs" "$peers/logs"

if ! command -v wrk >/dev/null || ! command -v hey >/dev/null || [ ! -x /usr/bin/python3.11 ]; then
    ../../scripts/setup.sh bench
    apt-get install -qy --no-install-recommends wrk hey python3.11 python3.11-venv libpython3.11 >"$peers/logs/apt.log" 2>&1
fi
if [ ! -x "$peers/tool/bin/uv" ]; then
    python3 -m venv "$peers/tool"
    "$peers/tool/bin/pip" install --quiet --disable-pip-version-check uv
fi

grep -v '^#' requirements.txt | while read -r name packages; do
    venv=$peers/venvs/$name
    stamp=$venv/.packages
    if [ -e "$stamp" ] && [ "$(cat "$stamp")" = "$packages" ]; then
        continue
    fi
    echo "installing $name: $packages" >&2
    # Triton's own build wants Debian's Python; the others take it too, so that none has an advantage by it.
    "$peers/tool/bin/uv" venv --quiet --clear --python /usr/bin/python3.11 "$venv"
    # Unquoted: the packages are words.
    "$peers/tool/bin/uv" pip install --quiet --compile-bytecode --python "$venv/bin/python" $packages >"$peers/logs/$name.log" 2>&1 || {
        tail -n 20 "$peers/logs/$name.log" >&2
        echo "$name could not be installed" >&2
        exit 1
    }
    echo "$packages" >"$stamp"
done
