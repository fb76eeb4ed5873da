#!/bin/sh
# Make .venv-transformers: Hugging Face transformers, unmodified, on top of the packages of .venv, and in
# it `image`, the same for the Python of the trainer's image. The tests let it report to the operator;
# nothing else of the project uses it.
set -eu
cd "$(dirname "$0")/.."
IMAGE_PYTHON=3.13
COMPILED='regex|pyyaml|pydantic-core'
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
install() { .venv-transformers/bin/python -m pip install -q --no-compile --no-deps --require-hashes "$@"; }
own=$(packages .venv-transformers)
packages .venv >"$own/venv.pth"
install -r requirements/transformers.lock
# Nearly all of it runs with any Python; hard links take no room, and pip replaces what is compiled.
cp -al "$own" .venv-transformers/image
rm .venv-transformers/image/venv.pth
compiled=.venv-transformers/compiled.lock
awk "/^[^ #]/ { take = /^($COMPILED)==/ } take" requirements/transformers.lock >"$compiled"
install --upgrade --only-binary :all: --python-version "$IMAGE_PYTHON" --target .venv-transformers/image -r "$compiled"
echo "$wanted" >"$stamp"
