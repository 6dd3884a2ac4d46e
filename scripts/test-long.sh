#!/usr/bin/env bash
# Runs the long tests and writes their result, with commit and date, to docs/test-long.md.
#
# A long test is a Rust test whose name begins with `long_`. It is ignored in `make test`.
set -euo pipefail
cd "$(dirname "$0")/.."

report=docs/test-long.md
log=$(mktemp)
trap 'rm -f "$log"' EXIT

commit=$(git rev-parse --short=12 HEAD)
# The report itself is the one file that a run changes.
[ -z "$(git status --porcelain -- . ":!$report")" ] || commit="$commit, with uncommitted changes"
began=$(date +%s)
status=0
cargo test --workspace --locked --no-fail-fast -- --ignored --test-threads 1 long_ 2>&1 | tee "$log" || status=$?
minutes=$((($(date +%s) - began + 59) / 60))

# `test long_x ... ok`, where the test's own output may stand between the name and the result.
results=$(sed -n 's/^test \(.*long_[a-z0-9_]*\) \.\.\. *\(ok\|FAILED\)\?.*/\1 \2/p' "$log" | sort)
[ -n "$results" ] || {
    echo "test-long: no test was run; see above" >&2
    exit 1
}
{
    echo "# The long tests"
    echo
    echo "\`make test-long\` runs what takes too long for \`make test\`, and writes this page. It ran last on"
    echo "$(date -u +%Y-%m-%d), at commit $commit, with $(nproc) CPUs, in $minutes minutes: $([ "$status" = 0 ] && echo "all passed" || echo "**it failed**")."
    echo
    echo "| test | result |"
    echo "|---|---|"
    while read -r name result; do
        echo "| \`$name\` | ${result:-FAILED} |"
    done <<<"$results"
} >"$report"
echo "test-long: $report is written; commit it"
exit "$status"
