#!/bin/sh
# Make .venv as the lock files say; does nothing when it is up to date already.
set -eu
cd "$(dirname "$0")/.."
wanted=$(cat requirements/dev.lock requirements/torch.lock pyproject.toml hack/setup.sh | sha256sum | cut -d' ' -f1)
stamp=.venv/.locked
if [ -f "$stamp" ] && [ "$(cat "$stamp")" = "$wanted" ]; then
    exit 0
fi
say() { echo "setup: $*"; }
python=${PYTHON:-python3}
command -v "$python" >/dev/null || { say "no $python: install Python 3.11 or newer"; exit 1; }
"$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || {
    say "$("$python" --version) is too old: install Python 3.11 or newer, or set PYTHON=/path/to/it"
    exit 1
}
if ! "$python" -c 'import ensurepip, venv' 2>/dev/null; then
    say "this Python lacks venv: installing python3-venv"
    apt-get update -qq && apt-get install -y -qq --no-install-recommends python3-venv
fi
say "making .venv with $("$python" --version)"
[ -x .venv/bin/python ] || "$python" -m venv .venv
say "installing the locked development packages (1/3)"
.venv/bin/python -m pip install -q --require-hashes -r requirements/dev.lock
say "installing torch, about 3 GB to download (2/3)"
.venv/bin/python -m pip install -q --require-hashes -r requirements/torch.lock
say "installing this project, editable (3/3)"
.venv/bin/python -m pip install -q --no-deps --no-build-isolation -e .
echo "$wanted" >"$stamp"
say "done"
