#!/usr/bin/env bash
# Everything that CI runs, in one summary. Called by "make check" and .ci/run. Later steps run even if one fails.
#
#   tools/check.sh [STEP]...      all steps, or the named ones: tools/check.sh format vet
set -euo pipefail
cd "$(dirname "$0")/.."
go=${GO:-go}
export GOEXPERIMENT=${GOEXPERIMENT-simd} GOMLX_NO_AUTO_INSTALL=1
root=$PWD

# files prints the files of the checkout that match a pattern: tracked or new, not ignored, not deleted.
files() {
	local list f
	list=$(git ls-files --cached --others --exclude-standard -- "$@")
	while IFS= read -r f; do
		if [[ -f $f ]]; then printf '%s\n' "$f"; fi
	done <<<"$list"
}

step_format() {
	local list bad
	list=$(files '*.go')
	mapfile -t list <<<"$list"
	bad=$(gofmt -s -l "${list[@]}")
	if [[ -n $bad ]]; then
		echo "run gofmt -s -w on:"
		echo "$bad"
		return 1
	fi
	local script
	for script in .ci/run docker/*.sh tools/*.sh; do bash -n "$script"; done
}

step_build() {
	make --no-print-directory build
}

step_vet() {
	"$go" vet ./...
	"$go" vet -tags selftest ./pkg/nb/execute ./pkg/nb/kernel
	GOEXPERIMENT='' "$go" vet ./... # users of the packages need not build with simd
}

step_lint() {
	mkdir -p .cache/bin
	GOBIN=$root/.cache/bin "$go" -C tools/lint install tool
	.cache/bin/staticcheck ./...
}

step_tidy() {
	"$go" mod tidy -diff
	"$go" -C tools mod tidy -diff
	"$go" -C tools/lint mod tidy -diff
}

# Needs no engine: docker/build.sh prints what it would build. docker_test.go checks the rest.
step_docker() {
	tools/venv.sh docker docker/requirements.txt
	.cache/docker/bin/hadolint --failure-threshold warning docker/Dockerfile
	.cache/docker/bin/check-jsonschema --builtin-schema vendor.compose-spec docker/compose.yaml
	ENGINE=echo docker/build.sh cli lab lab-cuda
}

# A failure to get the plugin is its own step, so that the summary tells it from a failing test.
step_backend() {
	bin/elastic backend install --if-missing
	bin/elastic backend path
}

# A short run of the main job, from scratch so that it needs no download, and what Python's safetensors says of its model.
# With the data set at hand, the weights are fetched too, so that the tests that need them run.
step_run() {
	local dir=.cache/check-run
	rm -rf "$dir"
	bin/elastic train ner --model scratch --limit 640 --epochs 2 --run "$dir"
	tools/venv.sh
	.cache/venv/bin/python tools/check_saved.py "$dir/model"
	bin/elastic fetch minilm-l6 || echo "check: no MiniLM weights; the tests that need them are skipped"
}

step_test() {
	REQUIRE_XLA=1 tools/test.sh
}

# checkptr=0: it stops at an address computation in the AVX-512 kernels of GoMLX.
# The packages that share data between goroutines; graphs are run by the backends, which have their own tests.
step_race() {
	local dirs=() pattern
	for pattern in pkg/data pkg/elastic/train pkg/elastic/checkpoint pkg/track pkg/viz pkg/nb/kernel pkg/nb/execute internal/atomicfile; do
		if [[ -d $pattern ]]; then dirs+=("./$pattern/..."); fi
	done
	CGO_ENABLED=1 GOMLX_BACKEND=go "$go" test -race -gcflags=all=-d=checkptr=0 -short -timeout 15m "${dirs[@]}"
	CGO_ENABLED=1 GOMLX_BACKEND=go "$go" test -race -gcflags=all=-d=checkptr=0 -run Concurrent -timeout 15m ./pkg/ner
}

# fuzz runs one target. Before Go 1.27 the fuzzer may report its own deadline as a failure (go.dev/issue/75804); that, and only
# that, is tried once more.
fuzz() {
	local log=.cache/fuzz.log try
	mkdir -p .cache
	for try in 1 2; do
		if GOMLX_BACKEND=go "$go" test -run '^$' -fuzz "^$2\$" -fuzztime "${FUZZTIME:-5s}" -fuzzminimizetime 10x "./$1" >"$log" 2>&1; then
			tail -n 3 "$log"
			return 0
		fi
		cat "$log"
		if ! grep -q 'context deadline exceeded' "$log" || grep -q 'Failing input written' "$log"; then return 1; fi
	done
	return 1
}

step_fuzz() {
	local list dirs dir out name n=0
	list=$(files '*_test.go')
	mapfile -t list <<<"$list"
	dirs=$({ grep -l '^func Fuzz' "${list[@]}" || (($? == 1)); } | xargs -r -n1 dirname | sort -u) # 1: no match
	for dir in $dirs; do
		out=$("$go" test -list '^Fuzz' "./$dir")
		while IFS= read -r name; do
			if [[ $name != Fuzz* ]]; then continue; fi
			echo "fuzz: $dir $name"
			fuzz "$dir" "$name"
			n=$((n + 1))
		done <<<"$out"
	done
	echo "fuzz: $n targets, ${FUZZTIME:-5s} each"
}

step_bench() {
	GOMLX_BACKEND=go "$go" test -run '^$' -bench . -benchtime 1x -timeout 15m ./...
}

step_selftest() {
	tools/notebooks.sh --selftest
}

step_nbcheck() {
	bin/elastic nb check notebooks/*.ipynb
}

step_notebooks() {
	REQUIRE_XLA=1 tools/notebooks.sh notebooks/*.ipynb
}

all=(format build vet lint tidy docker backend run test race fuzz bench nbcheck selftest notebooks)
steps=("$@")
if ((${#steps[@]} == 0)); then steps=("${all[@]}"); fi
for s in "${steps[@]}"; do
	if ! declare -F "step_$s" >/dev/null; then
		echo "check: no step $s; there are: ${all[*]}" >&2
		exit 2
	fi
done

summary=() failed=() began=$SECONDS
for s in "${steps[@]}"; do
	printf '\n== %s\n' "$s"
	start=$SECONDS
	# Not inside "if": there the shell would ignore the failures of all commands but the last.
	set +e
	(
		set -euo pipefail
		"step_$s"
	)
	rc=$?
	set -e
	if ((rc == 0)); then word=ok; else word="FAILED ($rc)" failed+=("$s"); fi
	summary+=("$(printf '  %-10s %4d s  %s' "$s" $((SECONDS - start)) "$word")")
done

printf '\ncheck: %d steps in %d s (%s, GOEXPERIMENT=%s)\n' "${#steps[@]}" $((SECONDS - began)) "$("$go" env GOVERSION)" "$GOEXPERIMENT"
printf '%s\n' "${summary[@]}"
if ((${#failed[@]})); then
	echo "check: FAILED: ${failed[*]} (one alone: tools/check.sh ${failed[0]})"
	exit 1
fi
echo "check: all passed"
