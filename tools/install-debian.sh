#!/usr/bin/env bash
# Installs the Debian packages that "make check" needs and that are missing. Safe to run again; elsewhere it only says
# what to install. Go is not among them: Debian's is too old, see https://go.dev/dl.
set -euo pipefail

missing=()
[[ -e /etc/ssl/certs/ca-certificates.crt ]] || missing+=(ca-certificates)
command -v git >/dev/null || missing+=(git)
command -v make >/dev/null || missing+=(make)
command -v gcc >/dev/null || missing+=(gcc libc6-dev) # go test -race links with the C compiler
command -v python3 >/dev/null || missing+=(python3)
# "python3 -m venv" needs ensurepip, which Debian ships in a package of its own.
python3 -c 'import venv, ensurepip' 2>/dev/null || missing+=(python3-venv)

if ! command -v go >/dev/null; then
	echo "install-debian: go is missing: install Go 1.26 from https://go.dev/dl" >&2
	exit 1
fi
if ((${#missing[@]} == 0)); then
	echo "install-debian: nothing is missing"
	exit 0
fi
if ! command -v apt-get >/dev/null; then
	echo "install-debian: please install: ${missing[*]} (no apt-get here)" >&2
	exit 1
fi
sudo=()
if [[ $(id -u) != 0 ]]; then
	if ! command -v sudo >/dev/null || ! sudo -n true 2>/dev/null; then
		echo "install-debian: please run: sudo apt-get install ${missing[*]}" >&2
		exit 1
	fi
	sudo=(sudo -n)
fi
echo "install-debian: installing ${missing[*]}"
export DEBIAN_FRONTEND=noninteractive
"${sudo[@]}" apt-get update -qq
"${sudo[@]}" apt-get install -y -qq --no-install-recommends "${missing[@]}"
