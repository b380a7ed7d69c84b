#!/bin/sh
# The Python client's tests: the package is built as it would be published, installed,
# its types checked, and driven against a real server. DRUMLINE_BIN names the binary;
# else it is the debug build. What is given is handed to pytest.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
root=$(cd "$here/../.." && pwd)
target=${CARGO_TARGET_DIR:-$root/target}
DRUMLINE_BIN=${DRUMLINE_BIN:-$target/debug/drumline}
export DRUMLINE_BIN PYTHONDONTWRITEBYTECODE=1

if [ ! -x "$DRUMLINE_BIN" ]; then
    echo "error: $DRUMLINE_BIN is not there; build it with cargo build, or set DRUMLINE_BIN" >&2
    exit 1
fi
venv=$("$root/scripts/venv.sh" python-client "$here/constraints.txt" 3.10)
cd "$here"

dist=$target/python-client
rm -rf "$dist"
mkdir -p "$dist"
"$venv/bin/python" -c 'import build_backend, sys; build_backend.build_sdist(sys.argv[1])' "$dist" \
    >"$dist/build.log" 2>&1 || { cat "$dist/build.log" >&2; exit 1; }
# From the archive alone, so that it must hold all that a build needs.
"$venv/bin/python" -m pip install --quiet --disable-pip-version-check --force-reinstall \
    --no-index --no-deps --no-build-isolation "$dist"/drumline-*.tar.gz

"$venv/bin/mypy" --cache-dir "$target/mypy" --package drumline
MYPYPATH=tests "$venv/bin/mypy" --cache-dir "$target/mypy" tests
exec "$venv/bin/python" -m pytest -p no:cacheprovider -q "$@"
