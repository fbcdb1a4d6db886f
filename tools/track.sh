#!/usr/bin/env bash
# Checks with TensorBoard and MLflow themselves, on loopback, that they show the same series as the store, also after exports and a
# training that were killed.
#
#   tools/track.sh [tensorboard|mlflow]      default: both
set -euo pipefail
cd "$(dirname "$0")/.."
tools/venv.sh track tools/track-requirements.txt
make --no-print-directory build
dir=.cache/track-runs
rm -rf "$dir"
train=(bin/elastic train ner --model scratch --limit 96 --max-updates 60 --save-every 10 --run "$dir/killed")
GOMLX_BACKEND=go "${train[@]}" >/dev/null 2>&1 &
pid=$!
while [[ $(grep -c '"metrics"' "$dir/killed/journal.jsonl" 2>/dev/null || true) -lt 25 ]]; do
	if ! kill -0 $pid 2>/dev/null; then echo "track: the training ended early" >&2; exit 1; fi
	sleep 0.1
done
kill -9 $pid
wait $pid 2>/dev/null || true
[[ $(bin/elastic runs ls --dir "$dir" --where status=killed --field id | wc -l) == 2 ]] || { echo "track: the killed run is not listed as such" >&2; exit 1; }
GOMLX_BACKEND=go "${train[@]}" --resume >/dev/null 2>&1
.cache/track/bin/python tools/track_check.py --elastic bin/elastic --dir "$dir" "$@"
