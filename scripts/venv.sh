#!/bin/sh
# Makes a Python environment below target/ with exactly the packages that a file
# pins, and prints where it is. What is there already is used again.
#
#   scripts/venv.sh NAME CONSTRAINTS OLDEST      scripts/venv.sh python-client pins.txt 3.10
#
# PYTHON names another interpreter than python3. As root on Debian, what is missing
# of Python itself is installed.
set -eu
name=$1 pins=$2 oldest=$3
root=$(cd "$(dirname "$0")/.." && pwd)
venv=${CARGO_TARGET_DIR:-$root/target}/venv/$name
python=${PYTHON:-python3}

fail() {
    echo "error: $1; $2" >&2
    exit 1
}

has_venv() {
    command -v "$python" >/dev/null && "$python" -c 'import ensurepip, venv' 2>/dev/null
}

if ! has_venv && [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
    echo "installing python3 and python3-venv" >&2
    { apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq python3 python3-venv; } \
        </dev/null >&2 || echo "apt-get could not do it" >&2
fi
command -v "$python" >/dev/null ||
    fail "$python is not there" "install Python $oldest or newer (Debian: apt-get install python3 python3-venv)"
has_venv ||
    fail "$python cannot make environments" "install its venv module (Debian: apt-get install python3-venv)"
"$python" -c "import sys; sys.exit(sys.version_info < tuple(map(int, '$oldest'.split('.'))))" ||
    fail "$("$python" --version) is older than $oldest" "install a newer one and name it: PYTHON=python$oldest"

# The stamp is written last: an environment without it was not finished.
stamp=$("$python" -VV && cat "$pins")
if [ "$(cat "$venv/stamp" 2>/dev/null)" != "$stamp" ]; then
    rm -rf "$venv"
    "$python" -m venv "$venv" >&2
    "$venv/bin/python" -m pip install --quiet --disable-pip-version-check --requirement "$pins" >&2 ||
        fail "the packages of $pins could not be installed" "is PyPI, or a mirror that pip knows, within reach?"
    printf '%s\n' "$stamp" >"$venv/stamp"
fi
echo "$venv"
