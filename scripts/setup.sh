#!/usr/bin/env bash
# Installs what is missing to build, run or test Modelway. Quick when nothing is.
#
#   scripts/setup.sh        to build and run: Rust, a C compiler, curl, uv, Python with the packages of
#                           models/requirements.txt
#   scripts/setup.sh test   the same and what the tests start: PostgreSQL, an S3 server, MLflow, XGBoost, PyTorch,
#                           the clients of other servers
#   scripts/setup.sh bench  the same and what is measured beside us: nginx, wrk
set -euo pipefail
cd "$(dirname "$0")/.."

purpose=${1:-run}
cache=${MODELWAY_CACHE:-$HOME/.cache/modelway}
venv=$cache/venv
rust=$(sed -n 's/^rust-version = "\(.*\)"/\1/p' Cargo.toml)

say() { echo "setup: $*" >&2; }

fail() {
    say "$*"
    exit 1
}

# Whether $1 is at least $2, as versions.
at_least() { [ "$(printf '%s\n%s\n' "$1" "$2" | sort -V | head -n 1)" = "$2" ]; }

rust_is_there() {
    # rustup's before a distribution's, which may be too old.
    export PATH=${CARGO_HOME:-$HOME/.cargo}/bin:$PATH
    cargo_is_usable || command -v rustup >/dev/null || rust_is_installed
    cargo_is_usable || fail "$(which_cargo), and $rust or newer is needed: rustup update stable && rustup default stable"
    if [ "$purpose" = test ]; then
        local part
        for part in rustfmt clippy; do
            cargo "${part/rustfmt/fmt}" --version >/dev/null 2>&1 || rustup component add "$part" ||
                fail "$part is missing: rustup component add $part"
        done
    fi
}

cargo_version() { cargo --version 2>/dev/null | cut -d' ' -f2 || true; }

cargo_is_usable() {
    local found
    found=$(cargo_version)
    at_least "${found:-0}" "$rust"
}

which_cargo() {
    local path found
    path=$(command -v cargo) || path=cargo
    found=$(cargo_version)
    if [ -n "$found" ]; then
        echo "$path is $found"
    elif [ "$path" = cargo ]; then
        echo "there is no cargo"
    else
        echo "$path does not run"
    fi
}

# By rustup, for this user alone. The shell's files stay as they are: make finds cargo by itself.
rust_is_installed() {
    local target installer=$cache/rustup-init
    target=$(uname -m)-unknown-linux-gnu
    say "$(which_cargo). rustup installs Rust into ${CARGO_HOME:-$HOME/.cargo} and ${RUSTUP_HOME:-$HOME/.rustup}"
    curl -fsS --retry 3 --connect-timeout 20 -o "$installer" \
        "${RUSTUP_UPDATE_ROOT:-https://static.rust-lang.org/rustup}/dist/$target/rustup-init" &&
        chmod +x "$installer" &&
        RUSTUP_INIT_SKIP_PATH_CHECK=yes "$installer" -y --quiet --no-modify-path --profile minimal --default-toolchain stable >&2 ||
        fail "Rust could not be installed; see above. Install Rust $rust or newer yourself, then run make again:
  https://rustup.rs, or the packages of your distribution if they are new enough"
    rm "$installer"
}

# Installs Debian packages as root; says which ones to anybody else.
apt_install() {
    if [ "$(id -u)" != 0 ]; then
        fail "these packages are missing, and only root can install them: $*
  sudo apt-get install $*"
    fi
    command -v apt-get >/dev/null || fail "these are missing, and there is no apt-get to install them with: $*"
    say "installing $*"
    export DEBIAN_FRONTEND=noninteractive
    {
        # The package would start a server of its own.
        mkdir -p /etc/postgresql-common
        [ -e /etc/postgresql-common/createcluster.conf ] || echo 'create_main_cluster = false' >/etc/postgresql-common/createcluster.conf
        apt-get update -q
        apt-get install -qy --no-install-recommends "$@"
    } >"$cache/apt.log" 2>&1 || {
        tail -n 20 "$cache/apt.log" >&2
        fail "apt-get could not install $*; all it said is in $cache/apt.log"
    }
}

packages_are_there() {
    local missing=()
    command -v cc >/dev/null || missing+=(gcc libc6-dev)
    command -v curl >/dev/null || missing+=(curl ca-certificates)
    command -v python3 >/dev/null || missing+=(python3)
    python3 -c 'import ensurepip, venv' 2>/dev/null || [ -x "$venv/bin/pip" ] || missing+=(python3-venv)
    if [ "$purpose" = test ]; then
        compgen -G '/usr/lib/postgresql/*/bin/initdb' >/dev/null || command -v initdb >/dev/null || missing+=(postgresql)
        # On PyPI it comes with the libraries of a GPU.
        [ -d /usr/lib/python3/dist-packages/torch ] || missing+=(python3-torch)
    fi
    if [ "$purpose" = bench ]; then
        command -v nginx >/dev/null || missing+=(nginx-light)
        command -v wrk >/dev/null || missing+=(wrk)
    fi
    if [ ${#missing[@]} -gt 0 ]; then
        apt_install "${missing[@]}"
    fi
}

# Python with what $1 lists. The stamp $2 is written last, so that an interrupted installation goes on.
python_is_there() {
    local wanted list=$1 stamp=$venv/$2
    wanted=$(sha256sum <"$list")
    if [ -e "$stamp" ] && [ "$(cat "$stamp")" = "$wanted" ]; then
        return
    fi
    if [ ! -x "$venv/bin/pip" ]; then
        local version
        version=$(python3 -c 'import platform; print(platform.python_version())')
        at_least "$version" 3.11 || fail "python3 is $version, and 3.11 or newer is needed for the sample models"
        python3 -m venv "$venv"
    fi
    say "installing the Python packages of $list"
    "$venv/bin/pip" install --quiet --disable-pip-version-check -r "$list" || fail "pip could not install $list; see above"
    echo "$wanted" >"$stamp"
}

# The clients of other servers, which the tests run against ours.
clients_are_there() {
    local list=crates/modelserver/tests/clients/requirements.txt
    local wanted stamp=$cache/clients/.requirements
    wanted=$(sha256sum <"$list")
    if [ -e "$stamp" ] && [ "$(cat "$stamp")" = "$wanted" ]; then
        return
    fi
    if [ ! -x "$cache/clients/bin/pip" ]; then
        python3 -m venv "$cache/clients"
    fi
    say "installing the Python packages of the clients that the tests run"
    "$cache/clients/bin/pip" install --quiet --disable-pip-version-check -r "$list" ||
        fail "pip could not install $list; see above"
    echo "$wanted" >"$stamp"
}

# The wheel that carries ONNX's public cases; newer ones make them and carry few.
onnx_cases_are_there() {
    local wheel=$cache/onnx-suite.whl folder=$cache/onnx-suite
    [ ! -e "$wheel" ] || return 0
    say "downloading the public cases of ONNX"
    "$venv/bin/pip" download --quiet --disable-pip-version-check --no-deps --only-binary :all: --python-version 3.11 \
        --dest "$folder" onnx==1.17.0 || fail "pip could not download onnx 1.17.0; see above"
    mv "$folder"/onnx-*.whl "$wheel"
}

# The executable looks for both beside it, and for the library in ../lib, which serves debug and release.
libraries_are_linked() {
    local libraries=("$venv"/lib/python3*/site-packages/onnxruntime/capi/libonnxruntime.so.*)
    [ -e "${libraries[0]}" ] || fail "the onnxruntime package has no libonnxruntime.so in $venv; remove $venv and try again"
    local target=${CARGO_TARGET_DIR:-$cache/target}
    mkdir -p bin "$target/lib"
    ln -sfn "${libraries[0]}" bin/libonnxruntime.so
    ln -sfn "$venv/bin/uv" bin/uv
    ln -sfn "${libraries[0]}" "$target/lib/libonnxruntime.so"
}

case $purpose in
run | test | bench) ;;
*) fail "usage: scripts/setup.sh [test | bench]" ;;
esac
mkdir -p "$cache"
# Two at once would install into the same folders.
exec 9>"$cache/.setup.lock"
flock 9
packages_are_there
rust_is_there
python_is_there models/requirements.txt .requirements
python_is_there scripts/requirements.txt .build-requirements
libraries_are_linked
if [ "$purpose" = test ]; then
    python_is_there python/tests/requirements.txt .test-requirements
    clients_are_there
    onnx_cases_are_there
    scripts/versitygw.sh >/dev/null
    scripts/mlflow.sh >/dev/null
fi
