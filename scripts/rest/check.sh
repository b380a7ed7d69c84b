#!/bin/sh
# schemathesis over /openapi.json of a real server, with all checks: whatever the
# document promises must be so, and whatever it does not must be refused by the rules.
# DRUMLINE_BIN names the binary; else it is the debug build. What is given is handed on:
#
#   RUN_SECONDS=1800 scripts/rest/check.sh --seed 7 --max-examples 500 --include-path /v1/jobs
set -eu
here=$(cd "$(dirname "$0")" && pwd)
root=$(cd "$here/../.." && pwd)
DRUMLINE_BIN=${DRUMLINE_BIN:-${CARGO_TARGET_DIR:-$root/target}/debug/drumline}
export DRUMLINE_BIN PYTHONDONTWRITEBYTECODE=1
if [ ! -x "$DRUMLINE_BIN" ]; then
    echo "error: $DRUMLINE_BIN is not there; build it with cargo build, or set DRUMLINE_BIN" >&2
    exit 1
fi
venv=$("$root/scripts/venv.sh" schemathesis "$here/constraints.txt" 3.11)
exec "$venv/bin/python" "$here/check.py" "$@"
