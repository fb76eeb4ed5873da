#!/bin/sh
# Make .venv-bench: the peers of the benchmark, on top of the packages of .venv, which stays as locked.
set -eu
cd "$(dirname "$0")/.."
hack/setup.sh
wanted=$(cat requirements/bench.lock .venv/.locked hack/setup-bench.sh | sha256sum | cut -d' ' -f1)
stamp=.venv-bench/.locked
if [ -f "$stamp" ] && [ "$(cat "$stamp")" = "$wanted" ]; then
    exit 0
fi
echo "setup: making .venv-bench, with the locked peers of the benchmark"
rm -rf .venv-bench
.venv/bin/python -m venv .venv-bench
packages() { "$1/bin/python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))'; }
packages .venv >"$(packages .venv-bench)/venv.pth"
.venv-bench/bin/python -m pip install -q --no-deps --require-hashes -r requirements/bench.lock
# Merely installed it makes botocore sign and checksum in another way: no comparison would hold.
if .venv-bench/bin/python -c 'import awscrt' 2>/dev/null; then
    echo "setup: awscrt is installed and would change what boto3 does: remove it from .venv" >&2
    exit 1
fi
echo "$wanted" >"$stamp"
