#!/usr/bin/env bash
# Measures: the Go benchmarks of all packages, then ours against torch and JAX in one run. Called by "make bench".
set -euo pipefail
cd "$(dirname "$0")/.."
"${GO:-go}" test -run '^$' -bench "${BENCH:-.}" -timeout 60m ./...
tools/bench/run.sh
