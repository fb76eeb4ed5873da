#!/bin/sh
# Renew the lock files after pyproject.toml changed. Without addresses of package indexes, so
# that pip takes every package from wherever the machine is configured to look.
set -eu
cd "$(dirname "$0")/.."
compile() {
    out=$1
    shift
    uv pip compile --quiet pyproject.toml "$@" --universal --python-version 3.11 --generate-hashes \
        --no-emit-index-url --no-header --output-file "requirements/$out.lock"
}
compile operator --extra operator
compile trainer --extra trainer
compile dev --extra operator --extra trainer --group dev
compile torch --group torch --constraint requirements/dev.lock
# Only the peers themselves: .venv-bench sees the packages of .venv, torch among them.
compile bench --group bench --no-deps
# torch and numpy are those of .venv or of the image. hf-xet is a binary that downloads models; none is.
excluded=$(mktemp)
trap 'rm -f "$excluded"' EXIT
printf '%s\n' torch numpy hf-xet >"$excluded"
compile transformers --group transformers --excludes "$excluded"
