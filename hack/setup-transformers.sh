#!/bin/sh
# Make .venv-transformers: Hugging Face transformers, unmodified, on top of the packages of .venv. The
# tests let it report to the operator; nothing else of the project uses it.
set -eu
cd "$(dirname "$0")/.."
hack/setup.sh
wanted=$(cat requirements/transformers.lock .venv/.locked hack/setup-transformers.sh | sha256sum | cut -d' ' -f1)
stamp=.venv-transformers/.locked
if [ -f "$stamp" ] && [ "$(cat "$stamp")" = "$wanted" ]; then
    exit 0
fi
echo "setup: making .venv-transformers, with the locked transformers"
rm -rf .venv-transformers
.venv/bin/python -m venv --without-pip .venv-transformers
packages() { "$1/bin/python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))'; }
packages .venv >"$(packages .venv-transformers)/venv.pth"
.venv-transformers/bin/python -m pip install -q --no-compile --no-deps --require-hashes -r requirements/transformers.lock
echo "$wanted" >"$stamp"
