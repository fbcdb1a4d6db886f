#!/usr/bin/env bash
# Measures: the Go benchmarks of all packages, then ours against torch and JAX in one run. Called by "make bench".
set -euo pipefail
cd "$(dirname "$0")/.."
"${GO:-go}" test -run '^$' -bench "${BENCH:-.}" -timeout 60m ./...
if [[ ! -x tools/bench/run.sh ]]; then
	echo "bench: tools/bench/run.sh, the comparison with torch and JAX, is not there" >&2
	exit 1
fi
tools/bench/run.sh
