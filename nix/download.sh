# Downloads the files of the exact locks into $out, each checked against its one sha256. Needs a package registry.
#
#   python=PYTHON locks=ENVS out=FOLDER sh nix/download.sh
#
# Used by nix/wheelhouse.nix and by hand; which registry is pip's own configuration. Wheels only, but for the two packages
# that have none: pip reads an sdist's metadata by running its build tools, so those are fetched and installed first.
set -eu
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
mkdir -p "$out"
export HOME=$work DS_BUILD_OPS=0 SOURCE_DATE_EPOCH=315532800 PIP_DISABLE_PIP_VERSION_CHECK=1
umask 022

"$python" -m venv "$work/tools"
pip() { "$work/tools/bin/python" -m pip "$@"; }
fetch() { pip download --no-cache-dir --progress-bar off --require-hashes --no-deps --only-binary :all: --dest "$out" "$@"; }

fetch --requirement "$locks/exact-build.txt"
pip install --no-index --no-deps --no-compile "$out"/*.whl
fetch --no-binary connection-pool,deepspeed --no-build-isolation --requirement "$locks/exact.txt"
