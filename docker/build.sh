#!/usr/bin/env bash
# Builds images of the workbench.
#
#   docker/build.sh [TARGET]...     targets of docker/Dockerfile, default lab and cli; the images are elastic-TARGET
#   docker/build.sh --pin           asks the registries for the digests of the bases' tags and writes them into docker/Dockerfile
#
# A base in the environment (LAB_BASE=my/debian) goes before the Dockerfile's.
#   ENGINE        the program that builds (default docker; podman and buildah take the same arguments)
#   ENGINE_ARGS   further arguments of its build command
set -euo pipefail
cd "$(dirname "$0")/.."
engine=${ENGINE:-docker}

# bases prints NAME=IMAGE for each base of the Dockerfile.
bases() { sed -n 's/^ARG \([A-Z]*_BASE\)=\(.*\)$/\1=\2/p' docker/Dockerfile; }

if [[ ${1:-} == --pin ]]; then
	edits=()
	while IFS='=' read -r name image; do
		tag=${image%@*}
		digest=$("$engine" buildx imagetools inspect --format '{{.Manifest.Digest}}' "$tag")
		[[ $digest =~ ^sha256:[0-9a-f]{64}$ ]] || {
			echo "build: $tag has no digest: $digest" >&2
			exit 1
		}
		edits+=(-e "s|^ARG $name=.*|ARG $name=$tag@$digest|")
	done < <(bases)
	sed -i "${edits[@]}" docker/Dockerfile # all or none: a tag that is not found ends before
	bases
	exit
fi

args=()
while IFS='=' read -r name image; do
	chosen=${!name:-$image}
	if [[ $chosen != *@sha256:* ]]; then echo "build: $name=$chosen is not pinned by a digest" >&2; fi
	args+=(--build-arg "$name=$chosen")
done < <(bases)

if (($# == 0)); then set -- lab cli; fi
read -ra more <<<"${ENGINE_ARGS:-}"
for target; do
	"$engine" build "${more[@]}" "${args[@]}" --build-arg NB_UID="${NB_UID:-1000}" --target "$target" --tag "elastic-$target" --file docker/Dockerfile .
done
