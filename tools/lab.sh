#!/usr/bin/env bash
# Opens JupyterLab on the notebooks: reachable from this machine only, with a token. Arguments go to "jupyter lab".
# LAB_IP is another address to listen on: a container listens on all of its own.
set -euo pipefail
cd "$(dirname "$0")/.."
tools/venv.sh
tools/kernel.sh --gopls --data-dir user
mkdir -p notebooks
# No question about news on the first start, and no request for them or for updates.
mkdir -p .cache/venv/share/jupyter/lab/settings
echo '{"@jupyterlab/apputils-extension:notification": {"fetchNews": "false", "checkForUpdates": false}}' >.cache/venv/share/jupyter/lab/settings/overrides.json
root=()
if [[ $(id -u) == 0 ]]; then root=(--allow-root); fi # as in a container
export PATH=$PWD/.cache/venv/bin:$PATH
exec jupyter lab --ip="${LAB_IP:-127.0.0.1}" --port="${LAB_PORT:-8888}" --ServerApp.root_dir="$PWD" --ServerApp.default_url=/lab/tree/notebooks --MultiKernelManager.default_kernel_name=gonb "${root[@]}" "$@"
