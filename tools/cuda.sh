#!/usr/bin/env bash
# Installs the XLA plugin for NVIDIA and, below .cache, the CUDA libraries that it needs (several GB). Needs bin/elastic.
# The driver is the machine's own.
set -euo pipefail
cd "$(dirname "$0")/.."
bin/elastic backend install --device cuda
tools/venv.sh cuda tools/requirements-cuda.txt
nvidia=$(echo "$PWD"/.cache/cuda/lib/python3.*/site-packages/nvidia)
if [[ ! -d $nvidia ]]; then
	echo "cuda: no folder $nvidia; what does tools/requirements-cuda.txt install?" >&2
	exit 1
fi
ln -sfn "$nvidia" "${ELASTIC_CACHE_DIR:-${XDG_CACHE_HOME:-$HOME/.cache}/elastic}/pjrt/nvidia"
