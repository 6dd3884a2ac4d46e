#!/usr/bin/env bash
# Starts bin/modelway in the foreground, deploys the iris model and shows what to do next. Ctrl-C ends everything.
#
#   scripts/up.sh           starts it
#   scripts/up.sh --check   only says whether the addresses are free
#
# GATEWAY_ADDR, CONTROL_ADDR and DATA_DIR in the environment change where.
set -euo pipefail
cd "$(dirname "$0")/.."

cache=${MODELWAY_CACHE:-$HOME/.cache/modelway}
gateway=${GATEWAY_ADDR:-127.0.0.1:8080}
control=${CONTROL_ADDR:-127.0.0.1:8081}
model=$cache/models/iris/1

say() { echo "$*" >&2; }

# Modelway would say so too, but only after the build, and what is deployed below must not reach another one.
address_is_free() {
    local host=${1%:*} port=${1##*:}
    (exec 3<>"/dev/tcp/$host/$port") 2>/dev/null || return 0
    if curl -fs --max-time 2 "http://$control/health/live" >/dev/null 2>&1; then
        say "Modelway is running at $control already. Use that one, or end it with Ctrl-C where it was started."
    else
        say "$1 is taken by another program. End that one, or choose other addresses."
    fi
    say "To run another beside it:  make up GATEWAY_ADDR=127.0.0.1:9080 CONTROL_ADDR=127.0.0.1:9081 DATA_DIR=/tmp/modelway-2"
    exit 1
}

address_is_free "$gateway"
address_is_free "$control"
if [ "${1:-}" = --check ]; then
    exit 0
fi

connection=(--control-url "http://$control" --gateway-url "http://$gateway")
shown="bin/modelway"
if [ "$control $gateway" != "127.0.0.1:8081 127.0.0.1:8080" ]; then
    shown="MODELWAY__CLIENT__CONTROL_URL=http://$control MODELWAY__CLIENT__GATEWAY_URL=http://$gateway bin/modelway"
fi

# Runs beside Modelway, whose process id is $1, and ends with it.
greet() {
    local until=$((SECONDS + 60))
    until curl -fs --max-time 2 "http://$control/health/ready" >/dev/null 2>&1 &&
        curl -fs --max-time 2 "http://$gateway/v2/health/ready" >/dev/null 2>&1; do
        kill -0 "$1" 2>/dev/null || return 0
        if [ "$SECONDS" -ge "$until" ]; then
            say "Modelway is not ready yet. It keeps trying; see its output above."
            return 1
        fi
        sleep 0.1
    done
    if ! bin/modelway deploy "$model" --name iris "${connection[@]}" >/dev/null; then
        kill -0 "$1" 2>/dev/null || return 0
        say "The iris model could not be deployed; see above. Modelway stays up: $shown describe iris"
        return 1
    fi
    # Active is what the control plane says; the gateway hears of it a moment later.
    local prediction
    until prediction=$(bin/modelway predict iris --data '[[5.1, 3.5, 1.4, 0.2]]' "${connection[@]}" 2>&1); do
        kill -0 "$1" 2>/dev/null || return 0
        if [ "$SECONDS" -ge "$until" ]; then
            say "$prediction"
            say "The iris model is deployed, but does not predict. Modelway stays up: $shown describe iris"
            return 1
        fi
        sleep 0.2
    done
    echo
    echo "A prediction for a flower with sepals of 5.1 × 3.5 cm and petals of 1.4 × 0.2 cm:"
    echo "$prediction"
    cat <<END

  Predictions   http://$gateway/v2/models/iris/infer
  Control       http://$control/docs

Next, in another terminal:
  $shown list
  $shown predict iris --data '[[6.7, 3.0, 5.2, 2.3]]'
  $shown deploy $cache/models/digits/1 --name digits --replicas 2

Ctrl-C ends it.
END
}

arguments=(--gateway-addr "$gateway" --control-addr "$control")
if [ -n "${DATA_DIR:-}" ]; then
    arguments+=(--data-dir "$DATA_DIR")
fi
# Modelway takes this process's place, so that signals and the exit status are its own. The greeting is nobody's child,
# because Modelway would not wait for it; it says what Modelway would say on its standard output.
(greet $$ &)
exec bin/modelway up "${arguments[@]}" >/dev/null
