#!/usr/bin/env bash
# Fetches axe-core with npm into .cache, if it is not there, and prints the path of its script.
set -euo pipefail
cd "$(dirname "$0")/.."
dir=$PWD/.cache/axe-4.14.1
if [[ ! -f $dir/package/axe.min.js ]]; then
	mkdir -p "$dir"
	(cd "$dir" && npm pack --silent axe-core@4.14.1 >/dev/null && tar xzf axe-core-4.14.1.tgz)
fi
echo "$dir/package/axe.min.js"
