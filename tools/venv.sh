#!/usr/bin/env bash
# Makes a virtual environment below .cache; does nothing if it is up to date.
#
#   tools/venv.sh [NAME [REQUIREMENTS]]      default: venv tools/requirements.txt
set -euo pipefail
root=$(cd "$(dirname "$0")/.." && pwd)
venv=$root/.cache/${1:-venv}
want=$root/${2:-tools/requirements.txt}
if cmp -s "$want" "$venv/requirements.installed" && [[ -x $venv/bin/python ]]; then exit 0; fi
mkdir -p "$root/.cache"
if ! python3 -c 'import sys; sys.exit(sys.version_info < (3, 10))'; then
	echo "venv: $(python3 --version) is too old, want Python 3.10 or newer" >&2
	exit 1
fi
rm -f "$venv/requirements.installed"
if ! python3 -m venv "$venv"; then
	echo "venv: python3 has no venv module; on Debian and Ubuntu run tools/install-debian.sh" >&2
	exit 1
fi
"$venv/bin/pip" install --quiet --disable-pip-version-check -r "$want"
cp "$want" "$venv/requirements.installed"
