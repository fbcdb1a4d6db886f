#!/usr/bin/env bash
# Ours against torch and JAX on one machine, in turns, and the goals that follow from it. Called by "make bench".
#
#   tools/bench/run.sh [WORKLOAD]...      all workloads, or the named ones: fwd infer train train-small attn ner
#
# ROUNDS (3) is how often each engine runs a workload. The first call fetches the peers (several GB) into .cache/bench-venv.
# tools/bench/README.md says what is computed. Exit status 1: a peer or ours failed, or they computed different things; a goal
# that is missed is printed and is no failure.
set -euo pipefail
cd "$(dirname "$0")/../.."
go=${GO:-go}
rounds=${ROUNDS:-3}
export GOEXPERIMENT=${GOEXPERIMENT-simd} GOMLX_NO_AUTO_INSTALL=1

if (($# == 0)); then set -- fwd infer train train-small attn ner; fi
for w in "$@"; do
	case $w in
	fwd | infer | train | train-small | attn | ner) ;;
	*)
		echo "bench: no workload $w; there are: fwd infer train train-small attn ner" >&2
		exit 2
		;;
	esac
done

tools/venv.sh bench-venv tools/bench/requirements.txt
py=.cache/bench-venv/bin/python
"$go" build -o bin/bench ./internal/bench
bin/elastic backend install --if-missing
xla=$(bin/elastic backend path)

export BENCH_DATA=$PWD/.cache/bench
mkdir -p "$BENCH_DATA"
[[ -f $BENCH_DATA/minilm-l6.safetensors ]] || "$py" tools/bench/make_inputs.py minilm-l6
log=$BENCH_DATA/log.jsonl
: >"$log"

failed=0
# compare TITLE WORKLOAD [FLAG]... runs torch, JAX and ours with the same flags.
compare() {
	local title=$1 workload=$2
	shift 2
	local engines=(
		"torch=$py tools/bench/bench_torch.py $workload minilm-l6 $*"
		"jax=$py tools/bench/bench_jax.py $workload minilm-l6 $*"
		"xla=GOMLX_BACKEND=$xla bin/bench $workload minilm-l6 $*"
	)
	if [[ $workload == infer ]]; then engines+=("go=GOMLX_BACKEND=go bin/bench $workload minilm-l6 $*"); fi
	"$py" tools/bench/compare.py --rounds "$rounds" --timeout 300 --title "$title" --out "$log" "${engines[@]}" || failed=1
	echo
}

# attention TITLE KIND SEQ OURS [FLAG]... runs torch's attention of a kind, 8 heads of 64 without a mask, and ours.
attention() {
	local title=$1 kind=$2 seq=$3 ours=$4
	shift 4
	"$py" tools/bench/compare.py --rounds "$rounds" --timeout 300 --title "$title" --out "$log" \
		"torch=$py tools/bench/bench_torch.py attn x --kind $kind --seq $seq $*" \
		"xla=GOMLX_BACKEND=$xla bin/bench attn '{\"heads\": 8}' --seq $seq $ours $*" || failed=1
	echo
}

for w in "$@"; do
	case $w in
	fwd) compare "forward 16x128" fwd --batch 16 --seq 128 ;;
	infer) compare "inference 1x32" infer --batch 1 --seq 32 --n 200 --warm 20 ;;
	train) compare "training step 16x128" train --batch 16 --seq 128 ;;
	train-small) compare "training step 4x128" train --batch 4 --seq 128 --n 20 ;;
	attn)
		attention "attention 4096" sdpa 4096 ""
		attention "attention 4096 with gradients" sdpa_train 4096 --train
		attention "attention 512 with gradients, eager" naive_train 512 --train --n 30
		;;
	ner)
		bin/bench data "$BENCH_DATA/ner"
		GOMLX_BACKEND=$xla "$py" tools/bench/compare_ner.py --rounds "$rounds" --dir "$BENCH_DATA/ner" --out "$log" || failed=1
		echo
		;;
	esac
done
"$py" tools/bench/goals.py "$log"
exit "$failed"
