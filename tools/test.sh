#!/usr/bin/env bash
# Runs all tests on the pure-Go backend, then on XLA if a plugin is installed. Called by "make test".
set -euo pipefail
cd "$(dirname "$0")/.."
go=${GO:-go}

# Fetch what the tests need, then cut them off: a test that reaches for the network fails.
"$go" list -deps -test ./... >/dev/null
export GOPROXY=off GOMLX_NO_AUTO_INSTALL=1
export http_proxy=http://127.0.0.1:9 https_proxy=http://127.0.0.1:9 no_proxy=127.0.0.1,localhost,::1
export HTTP_PROXY=$http_proxy HTTPS_PROXY=$https_proxy NO_PROXY=$no_proxy

echo "test: pure Go (GOEXPERIMENT=${GOEXPERIMENT:-})"
GOMLX_BACKEND=go "$go" test -timeout 30m "$@" ./...

if xla=$(bin/elastic backend path) && [[ -n $xla ]]; then
	echo "test: XLA ($xla)"
	GOMLX_BACKEND=$xla "$go" test -timeout 30m "$@" ./...
	echo "test: all passed on pure Go and on XLA"
else
	if [[ -n ${REQUIRE_XLA:-} ]]; then
		echo "test: XLA is required here, but no plugin is installed" >&2
		exit 1
	fi
	echo "test: all passed on pure Go; NOT RUN on XLA, because no plugin is installed (get one: bin/elastic backend install)"
fi
