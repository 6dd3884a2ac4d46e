#!/usr/bin/env bash
# Builds the binary of a released version, for the tests that run it beside this one. Some minutes the first time,
# nothing after that. Prints the path of the binary.
#
#   scripts/release.sh 0.1.0
#
# crates/e2e/releases/VERSION/commit names the commit.
set -euo pipefail
cd "$(dirname "$0")/.."

version=${1:?usage: scripts/release.sh VERSION}
commit=$(cat "crates/e2e/releases/$version/commit")
cache=${MODELWAY_CACHE:-$HOME/.cache/modelway}
target=${CARGO_TARGET_DIR:-$cache/target}
folder=$cache/old/$commit
binary=$folder/modelway

build() {
    git cat-file -e "$commit^{commit}" 2>/dev/null || {
        echo "release.sh: this clone has no commit $commit, which is version $version: git fetch --unshallow" >&2
        exit 1
    }
    mkdir -p "$folder"
    staging=$(mktemp -d "$folder/.build.XXXXXX")
    trap 'rm -rf "$staging"' EXIT
    echo "release.sh: building version $version, commit ${commit:0:12}" >&2
    mkdir -p "$staging/checkout" "$staging/target/debug"
    git archive "$commit" | tar -x -C "$staging/checkout"
    # Crates of the registry that both versions use are built already. Without them this takes longer, and works.
    local part
    for part in .fingerprint build deps; do
        cp -al "$target/debug/$part" "$staging/target/debug/" 2>/dev/null || rm -rf "$staging/target/debug/$part"
    done
    find "$staging/target/debug" -mindepth 2 -maxdepth 2 -name '*modelway*' -exec rm -rf {} +
    cargo build --quiet --locked --manifest-path "$staging/checkout/Cargo.toml" --target-dir "$staging/target" \
        --package modelway-cli --bin modelway >&2
    mv "$staging/target/debug/modelway" "$binary"
}

if [ ! -x "$binary" ]; then
    mkdir -p "$folder"
    exec 9>"$folder/.lock"
    flock 9
    [ -x "$binary" ] || build
fi
echo "$binary"
