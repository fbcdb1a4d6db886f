#!/usr/bin/env bash
# Looks at "elastic ui" in headless Chromium, with axe-core; pictures of the pages come to .cache/ui.
# Wants: chromium (Debian's package, or CHROMIUM), npm for axe-core.
set -euo pipefail
cd "$(dirname "$0")/.."
tools/venv.sh ui tools/ui-requirements.txt
make --no-print-directory build
chromium=${CHROMIUM:-$(command -v chromium)}
axe=$(tools/axe.sh)
export GOMLX_BACKEND=go
dir=.cache/ui-runs
rm -rf "$dir"
for seed in 1 2 3; do
	bin/elastic train ner --model scratch --limit 96 --max-updates 40 --seed $seed --lr 0.00$seed --run "$dir/ner-$seed" >/dev/null 2>&1
done
bin/elastic train ner --model scratch --limit 96 --max-updates 20 --attention '{"normalizer": {"kind": "entmax", "learned": true}, "span": {"max": 64, "ramp": 8}}' \
	--run "$dir/ner-span" >/dev/null 2>&1
bin/elastic explain "$dir/ner-span" --heads --split dev --limit 20 --keep >/dev/null 2>&1
bin/elastic train classify --model scratch --limit 96 --max-updates 20 --run "$dir/classify" >/dev/null 2>&1
bin/elastic runs note --dir "$dir" ner-1 "a note" --tag good >/dev/null
.cache/ui/bin/python tools/ui_check.py --elastic bin/elastic --dir "$dir" --chromium "$chromium" --axe "$axe" --pictures .cache/ui
