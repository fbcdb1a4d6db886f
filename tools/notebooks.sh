#!/usr/bin/env bash
# Executes notebooks headless through the real kernel, on the best backend there is, and compares their numbers.
#
#   tools/notebooks.sh [argument of elastic nb run]... NOTEBOOK...
#   tools/notebooks.sh --selftest      injects broken notebooks and sees them fail, here and in Python's runner; asks the real kernel for
#                                      completion and inspection, and interrupts its cells
#
# The executed copies are in .cache/notebooks. Needs bin/elastic.
set -euo pipefail
cd "$(dirname "$0")/.."
if [[ ${1:-} == --selftest ]]; then tools/kernel.sh --gopls; else tools/kernel.sh; fi
# Nothing of the user's own Jupyter takes part.
export JUPYTER_DATA_DIR=$PWD/.cache/jupyter JUPYTER_CONFIG_DIR=$PWD/.cache/jupyter-config JUPYTER_PATH= IPYTHONDIR=$PWD/.cache/ipython
export GOPROXY=off

if [[ ${1:-} == --selftest ]]; then
	tools/venv.sh
	export GOMLX_BACKEND=go NBRUN_PYTHON=$PWD/.cache/venv/bin/python
	exec "${GO:-go}" test -tags selftest -count 1 -run GoNB -timeout 30m -p 1 -v ./pkg/nb/execute ./pkg/nb/kernel
fi
if (($# == 0)); then
	echo "notebooks: there are none" >&2
	exit 1
fi
if [[ -z ${GOMLX_BACKEND:-} ]]; then
	if GOMLX_BACKEND=$(bin/elastic backend path) && [[ -n $GOMLX_BACKEND ]]; then
		export GOMLX_BACKEND
	elif [[ -n ${REQUIRE_XLA:-} ]]; then
		echo "notebooks: XLA is required here, but no plugin is installed" >&2
		exit 1
	else
		export GOMLX_BACKEND=go
	fi
fi
echo "notebooks: backend $GOMLX_BACKEND"
exec bin/elastic nb run --output .cache/notebooks --json "$@"
