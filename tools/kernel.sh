#!/usr/bin/env bash
# Installs the Go kernel of this checkout, by "elastic nb kernel install", which takes the arguments.
#
#   tools/kernel.sh [--gopls] [--data-dir DIR]
#
# Without --data-dir it goes into .cache/jupyter; "--data-dir user" means the user's own Jupyter.
set -euo pipefail
cd "$(dirname "$0")/.."
args=() data=.cache/jupyter
while (($#)); do
	case $1 in
	--data-dir)
		data=${2:?--data-dir needs a folder}
		shift
		;;
	*) args+=("$1") ;;
	esac
	shift
done
if [[ $data != user ]]; then args+=(--data-dir "$data"); fi
"${GO:-go}" run ./cmd/elastic nb kernel install "${args[@]}"
