#!/usr/bin/env bash
# Builds versitygw, an S3 server over a folder, for the tests. Minutes the first time, nothing after that.
# Prints the path of the binary.
set -euo pipefail

version=v1.8.0
cache=${MODELWAY_CACHE:-$HOME/.cache/modelway}
binary=$cache/bin/versitygw-$version

if [ ! -x "$binary" ]; then
    command -v go >/dev/null || {
        echo "versitygw.sh: go is missing: install it from https://go.dev/dl (1.24 or newer)" >&2
        exit 1
    }
    mkdir -p "$cache/bin"
    staging=$(mktemp -d "$cache/bin/.versitygw.XXXXXX")
    trap 'rm -rf "$staging"' EXIT
    echo "versitygw.sh: building versitygw $version, once, which takes some minutes" >&2
    GOBIN=$staging GOFLAGS=-mod=mod go install "github.com/versity/versitygw/cmd/versitygw@$version" >&2
    mv "$staging/versitygw" "$binary"
fi
echo "$binary"
