#!/usr/bin/env bash
# Looks at the pages of notebooks ("elastic nb site") in headless Chromium, with axe-core; pictures of them come to .cache/site-pictures.
#
#   tools/site.sh [NOTEBOOK]...        all of notebooks/, or those
#
# Wants: chromium (Debian's package, or CHROMIUM), npm for axe-core.
set -euo pipefail
cd "$(dirname "$0")/.."
tools/venv.sh ui tools/ui-requirements.txt
make --no-print-directory build
axe=$(tools/axe.sh)
if (($# == 0)); then set -- notebooks/*.ipynb; fi
rm -rf .cache/site
bin/elastic nb site --output .cache/site "$@"
.cache/ui/bin/python tools/site_check.py --site .cache/site --chromium "${CHROMIUM:-$(command -v chromium)}" --axe "$axe" --pictures .cache/site-pictures
