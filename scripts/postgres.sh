#!/bin/sh
# A PostgreSQL server for tests: on a free port of 127.0.0.1, without a password, without fsync.
#
#   scripts/postgres.sh start DIR [--with PID]   prints the server's URL; DIR is made for its data.
#                                                With a PID the server ends, and DIR goes, when that process does.
#   scripts/postgres.sh halt DIR                 ends the server as a crash would; its data stays.
#   scripts/postgres.sh resume DIR               starts a halted server again, on the same port.
#   scripts/postgres.sh stop DIR                 ends the server and removes its data.
#
# Never for data that anybody wants to keep.
set -eu

fail() {
    echo "postgres.sh: $*" >&2
    exit 1
}

usage() {
    sed -n '2,10s/^# \{0,1\}//p' "$0" >&2
    exit 2
}

binaries() {
    for bin in $(ls -d /usr/lib/postgresql/*/bin 2>/dev/null | sort -t/ -k5 -Vr) "$(dirname "$(command -v initdb || true)")"; do
        if [ -x "$bin/initdb" ] && [ -x "$bin/pg_ctl" ]; then
            echo "$bin"
            return
        fi
    done
}

# The server refuses to run as root: then it runs as the user that the package made.
as_server() {
    if [ "$(id -u)" = 0 ]; then
        # A folder that this user cannot read makes its programs complain.
        (cd / && exec setpriv --reuid=postgres --regid=postgres --init-groups env HOME=/tmp LC_ALL=C "$@")
    else
        LC_ALL=C "$@"
    fi
}

install_server() {
    [ "$(id -u)" = 0 ] || fail "PostgreSQL is missing and this user cannot install it; as root: apt-get install postgresql"
    command -v apt-get >/dev/null || fail "PostgreSQL is missing and there is no apt-get; install it, with initdb on the PATH"
    {
        # The package would start a server of its own.
        mkdir -p /etc/postgresql-common
        [ -e /etc/postgresql-common/createcluster.conf ] || echo 'create_main_cluster = false' >/etc/postgresql-common/createcluster.conf
        apt-get update -q && DEBIAN_FRONTEND=noninteractive apt-get install -qy --no-install-recommends postgresql
    } >&2 || fail "apt-get could not install postgresql; see above"
}

start() {
    dir=$1 with=$2
    bin=$(binaries)
    if [ -z "$bin" ]; then
        install_server
        bin=$(binaries)
        [ -n "$bin" ] || fail "postgresql is installed, but initdb is not in /usr/lib/postgresql/*/bin"
    fi
    [ ! -e "$dir/data" ] || fail "$dir holds a server already; stop it first: $0 stop $dir"
    mkdir -p "$dir"
    if [ "$(id -u)" = 0 ]; then
        chown postgres "$dir"
        setpriv --reuid=postgres --regid=postgres --init-groups test -w "$dir" ||
            fail "the user postgres cannot reach $dir; name a folder that is not inside a private one, such as in /tmp"
    fi
    as_server "$bin/initdb" -D "$dir/data" -A trust -U postgres --no-sync --encoding=UTF8 >"$dir/initdb.log" 2>&1 ||
        { cat "$dir/initdb.log" >&2; fail "initdb failed; see above"; }
    # Another program may take a port between our choosing it and the server's listening on it.
    for _ in 1 2 3 4 5; do
        port=$(shuf -i 20000-32000 -n 1)
        options="-c listen_addresses=127.0.0.1 -p $port -k $dir -c fsync=off -c max_connections=200 -c shared_buffers=32MB"
        if as_server "$bin/pg_ctl" -D "$dir/data" -w -t 60 -l "$dir/log" -o "$options" start >/dev/null 2>&1; then
            echo "$bin" >"$dir/bin"
            echo "$options" >"$dir/options"
            if [ -n "$with" ]; then
                setsid "$0" watch "$dir" "$with" </dev/null >/dev/null 2>&1 &
            fi
            echo "postgres://postgres@127.0.0.1:$port/postgres"
            return
        fi
    done
    cat "$dir/log" >&2
    fail "the server does not start; see above"
}

control() {
    dir=$1
    shift
    [ -e "$dir/bin" ] || fail "$dir holds no server"
    as_server "$(cat "$dir/bin")/pg_ctl" -D "$dir/data" -w "$@" >/dev/null 2>&1
}

halt() {
    control "$1" -m immediate stop || fail "the server does not stop; see $1/log"
}

resume() {
    control "$1" -t 60 -l "$1/log" -o "$(cat "$1/options")" start || fail "the server does not start; see $1/log"
}

stop() {
    control "$1" -m immediate stop || true
    rm -rf "$dir/data" "$dir/bin" "$dir/options" "$dir/log" "$dir/initdb.log"
    rmdir "$dir" 2>/dev/null || true
}

case "${1:-} $#" in
"start 2") start "$2" "" ;;
"start 4") [ "$3" = --with ] || usage; start "$2" "$4" ;;
"halt 2") halt "$2" ;;
"resume 2") resume "$2" ;;
"stop 2") stop "$2" ;;
"watch 3")
    tail --pid="$3" -s 0.2 -f /dev/null
    stop "$2"
    ;;
*) usage ;;
esac
