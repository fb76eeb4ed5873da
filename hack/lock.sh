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
# Only what .venv lacks: the tests' transformers sees the packages of .venv as well. hf-xet is the
# binary that downloads models; the tests download none.
names() { sed -n 's/^\([a-z0-9][a-z0-9._-]*\)==.*/\1/p' "requirements/$1.lock"; }
excluded=$(mktemp)
trap 'rm -f "$excluded"' EXIT
{ names dev; names torch; echo hf-xet; } >"$excluded"
compile transformers --group transformers --excludes "$excluded"
