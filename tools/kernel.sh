#!/usr/bin/env bash
# Builds the GoNB kernel from tools/go.mod into .cache/bin and installs a kernelspec named "gonb".
#
#   tools/kernel.sh [--gopls] [--data-dir DIR]
#
# --gopls       build gopls too: completion and inspection in JupyterLab
# --data-dir    Jupyter data folder (default: .cache/jupyter; "user" means the user's own)
#
# The spec is our own, not that of "gonb --install", because the kernel must work from a server that has neither go
# nor goimports in its PATH, and must build cells against this module without asking the network:
#   -go_work     every cell sees this module and the versions of its go.mod; with the line %noautoget in the first
#                cell of the notebook nothing is downloaded
#   -raw_error   errors as text: the headless runner and diffs can read them
#   -ldflags=-s  no symbol table: a cell with GoMLX links in about half the time
set -euo pipefail
root=$(cd "$(dirname "$0")/.." && pwd)
bin=$root/.cache/bin
data=$root/.cache/jupyter
gopls=
while (($#)); do
	case $1 in
	--gopls) gopls=1 ;;
	--data-dir)
		data=${2:?--data-dir needs a folder}
		shift
		;;
	*)
		echo "kernel.sh: unknown argument $1" >&2
		exit 2
		;;
	esac
	shift
done
if [[ $data == user ]]; then
	data=${JUPYTER_DATA_DIR:-${XDG_DATA_HOME:-$HOME/.local/share}/jupyter}
	if [[ $(uname) == Darwin && -z ${JUPYTER_DATA_DIR:-} ]]; then data=$HOME/Library/Jupyter; fi
fi

mkdir -p "$bin"
tools=(github.com/janpfeifer/gonb golang.org/x/tools/cmd/goimports)
if [[ -n $gopls ]]; then tools+=(golang.org/x/tools/gopls); fi
echo "kernel: building ${tools[*]##*/} (the first time takes a minute or two)" >&2
GOBIN=$bin GOFLAGS= go -C "$root/tools" install "${tools[@]}"
# Fetch now what cells need, so that they work without a network: what notebooks import beyond the packages themselves is
# pinned in deps.go; and a cell builds in a workspace, for which go reads the go.mod of everything that the module could need.
go -C "$root" list -deps -test -tags notebooks ./... >/dev/null
go -C "$root" mod graph >/dev/null

spec=$data/kernels/gonb
mkdir -p "$spec"
gobin=$(dirname "$(command -v go)")
# jupyter_client replaces ${PATH} by the server's value when it starts the kernel.
python3 - "$spec/kernel.json" "$root" "$bin" "$gobin" <<'PY'
import json, os, sys
path, root, bin_, gobin = sys.argv[1:]
spec = {
    "argv": [f"{bin_}/gonb", "--kernel", "{connection_file}", "-raw_error=true", f"-go_work={root}"],
    "display_name": "Go (gonb)",
    "language": "go",
    "interrupt_mode": "message",
    "env": {
        "PATH": f"{bin_}:{gobin}:" + "${PATH}",
        "GOFLAGS": "-ldflags=-s",
        "GOEXPERIMENT": "simd",
        "GOMLX_NO_AUTO_INSTALL": "1",
        "NB_MODULE": root,
    },
}
part = f"{path}.{os.getpid()}"
with open(part, "w") as f:
    json.dump(spec, f, indent=1)
    f.write("\n")
os.replace(part, path)
PY
echo "kernel: $spec (gonb $(go version -m "$bin/gonb" | awk '$1 == "mod" {print $3}'))"
