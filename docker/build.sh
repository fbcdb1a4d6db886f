#!/usr/bin/env bash
# Builds images of the workbench.
#
#   docker/build.sh [TARGET]...     targets of docker/Dockerfile, default lab and cli; the images are elastic-TARGET
#   docker/build.sh --pin           asks the registries for the digests of the bases and writes docker/bases.lock
#
# With docker/bases.lock, bases are taken by digest. A base in the environment (LAB_BASE=my/debian) goes first.
#   ENGINE        the program that builds (default docker; podman and buildah take the same arguments)
#   ENGINE_ARGS   further arguments of its build command
set -euo pipefail
cd "$(dirname "$0")/.."
engine=${ENGINE:-docker}
lock=docker/bases.lock

# bases prints NAME=IMAGE for each base of the Dockerfile.
bases() { sed -n 's/^ARG \([A-Z]*_BASE\)=\(.*\)$/\1=\2/p' docker/Dockerfile; }

if [[ ${1:-} == --pin ]]; then
	part=$lock.part
	while IFS='=' read -r name image; do
		digest=$("$engine" buildx imagetools inspect --format '{{.Manifest.Digest}}' "$image")
		[[ $digest == sha256:* ]] || {
			echo "build: $image has no digest: $digest" >&2
			exit 1
		}
		echo "$name=$image@$digest"
	done < <(bases) >"$part"
	mv "$part" "$lock"
	cat "$lock"
	exit
fi

args=()
while IFS='=' read -r name image; do
	pinned=
	if [[ -e $lock ]]; then pinned=$(sed -n "s/^$name=//p" "$lock"); fi
	if [[ -n $pinned && $pinned != "$image@"* ]]; then
		echo "build: $lock pins $pinned, the Dockerfile names $image: run docker/build.sh --pin" >&2
		exit 1
	fi
	chosen=${!name:-${pinned:-$image}}
	if [[ $chosen != *@sha256:* ]]; then echo "build: $name=$chosen is not pinned by a digest" >&2; fi
	args+=(--build-arg "$name=$chosen")
done < <(bases)

if (($# == 0)); then set -- lab cli; fi
read -ra more <<<"${ENGINE_ARGS:-}"
for target; do
	"$engine" build "${more[@]}" "${args[@]}" --build-arg NB_UID="${NB_UID:-1000}" --target "$target" --tag "elastic-$target" --file docker/Dockerfile .
done
