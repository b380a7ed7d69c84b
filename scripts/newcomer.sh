#!/usr/bin/env bash
# A newcomer's path: every block of README.md that names its language, in order and as
# it stands there, then those of docs/jobs.md and docs/grpc.md, with a home of its own
# and against a server of its own. What is printed and left behind is looked at.
# DRUMLINE_BIN names the binary; else it is the debug build. It wants curl, tmux and
# what clients/python/test.sh wants.
#
# What must hold: whoever's machine this is notices nothing; nothing outlives the
# script; every wait has a deadline; a block that is not walked is an error.
set -euo pipefail
root=$(cd "$(dirname "$0")/.." && pwd)
target=${CARGO_TARGET_DIR:-$root/target}
binary=${DRUMLINE_BIN:-$target/debug/drumline}
# How long one block may take, on a machine that is busy with other things.
block_seconds=120

fail() {
    echo "error: $1" >&2
    exit 1
}

[ -x "$binary" ] || fail "$binary is not there; build it with cargo build, or set DRUMLINE_BIN"
for program in curl tmux setsid timeout; do
    command -v "$program" >/dev/null || fail "$program is not there; install it (Debian: apt-get install $program)"
done
venv=$("$root/scripts/venv.sh" python-client "$root/clients/python/constraints.txt" 3.10)

place=$(mktemp -d "${TMPDIR:-/tmp}/drumline-newcomer-XXXXXX")
up=
leave() {
    code=$?
    trap - EXIT
    tmux -S "$place/tmux" kill-server 2>/dev/null || true
    if [ -n "$up" ]; then
        kill -TERM -- "-$up" 2>/dev/null || true
        for _ in $(seq 200); do
            kill -0 -- "-$up" 2>/dev/null || break
            sleep 0.05
        done
        if kill -KILL -- "-$up" 2>/dev/null; then
            echo "error: the server did not end when told to" >&2
            code=1
        fi
    fi
    if [ "$code" = 0 ]; then rm -rf "$place"; else echo "kept for a look: $place" >&2; fi
    exit "$code"
}
trap leave EXIT
trap 'exit 1' INT TERM HUP

# ------------------------------------------------------------- the place

clone=$place/drumline
mkdir -p "$place/bin" "$place/home/bin" "$clone/clients/python"
ln -s "$(realpath "$binary")" "$place/bin/drumline"
# What is to be built is built already.
cat >"$place/bin/cargo" <<'SHIM'
#!/bin/sh
case $* in
"run --release -- "*) shift 3 && exec drumline "$@" ;;
"install --path cli") ;;
*) echo "not on this path: cargo $*" >&2 && exit 1 ;;
esac
SHIM
chmod +x "$place/bin/cargo"
cp -R "$root/examples" "$root/proto" "$root/LICENSE" "$clone/"
for name in src build_backend.py generate.py pyproject.toml MANIFEST.in README.md; do
    cp -R "$root/clients/python/$name" "$clone/clients/python/"
done
for name in $(env | sed -n 's/^\(DRUMLINE_[A-Z_]*\)=.*/\1/p'); do unset "$name"; done
export HOME=$place/home PATH=$place/bin:$place/home/bin:$venv/bin:$PATH
# A port that is free, and room for a gang of two on any machine.
export DRUMLINE_LISTEN=127.0.0.1:0 DRUMLINE_CORES=4
# The packages that a build needs are pinned, and there already.
export PIP_NO_BUILD_ISOLATION=0 PIP_NO_DEPS=1 PIP_QUIET=1 PIP_DISABLE_PIP_VERSION_CHECK=1
export PYTHONDONTWRITEBYTECODE=1
cd "$clone"

# ------------------------------------------------------------- the walk

# What stands below a heading in a language, the first or the Nth such block.
block() {
    awk -v heading="## $1" -v fence='```'"$2" -v wanted="${3:-1}" '
        /^## / { here = $0 == heading }
        inside && $0 == "```" { inside = 0; next }
        inside { print; found = 1 }
        here && $0 == fence { inside = ++count == wanted }
        END { exit !found }
    ' "${4:-$root/README.md}" >"$place/block" || fail "README.md has no block $2 ${3:-1} below $1"
}

walked=0
begin() {
    echo "-- $1: block $2"
    walked=$((walked + 1))
}

# Runs a block to its end: HEADING LANGUAGE [NUMBER].
walk() {
    block "$@"
    begin "$1" "${3:-1} ($2)"
    case $2 in
    sh) as_written bash -euo pipefail "$place/block" ;;
    python) as_written "$venv/bin/python" "$place/block" ;;
    esac
}

as_written() {
    local code=0
    timeout -k 5 "$block_seconds" "$@" >"$place/said" 2>&1 </dev/null || code=$?
    [ "$code" = "${wanted:-0}" ] || { cat "$place/said" >&2 && fail "ended with $code: $(cat "$place/block" 2>/dev/null)"; }
}

says() {
    local text
    for text; do
        grep -qF -- "$text" "$place/said" || { cat "$place/said" >&2 && fail "it does not say: $text"; }
    done
}

# So many lines have this.
counts() {
    local found
    found=$(grep -cE -- "$2" "$place/said" || true)
    [ "$found" = "$1" ] || { cat "$place/said" >&2 && fail "$found lines instead of $1 have: $2"; }
}

until_so() {
    for _ in $(seq $((block_seconds * 10))); do
        if "${@:2}"; then return; fi
        sleep 0.1
    done
    fail "not in time: $1"
}

walk "Two commands" sh
[ "$(cat outputs/count/*/words | wc -l)" -gt 0 ] || fail "nothing was counted"
[ -s outputs/merge/total ] || fail "there is no outputs/merge/total"
wanted=3 as_written cargo run --release -- run examples/failing.toml
says "task 5 cannot do its work" "exit code 3"

# The job file that docs/jobs.md explains.
block "The job file" toml 1 "$root/docs/jobs.md"
mv "$place/block" words.toml
as_written drumline run words.toml --outputs counted
[ "$(cat counted/count/*/words | awk '{n += $1} END {print n}')" = "$(wc -w <examples/book.txt)" ] ||
    fail "the words of the book were not counted right"

# A server, which goes on while the rest is done.
block "Your own job" sh 1
begin "Your own job" "1 (sh)"
: >"$place/up"
setsid bash -euo pipefail "$place/block" >"$place/up" 2>&1 </dev/null &
up=$!
listens() {
    kill -0 "$up" 2>/dev/null || { cat "$place/up" >&2 && fail "the server ended"; }
    grep -q "^listening on" "$place/up"
}
until_so "the server listens" listens

walk "Your own job" sh 2
counts 100 '^main\[[0-9]+\] \| task [0-9]+$'
says "FAILED" "exit code 1" "good morning"
. ~/.drumline/client.env
drumline show default-2 -o json >"$place/said"
says '"COMPLETED"'

# The console, driven as a person would.
in_tmux() {
    tmux -S "$place/tmux" -f /dev/null -u "$@"
}
shows() {
    in_tmux capture-pane -p >"$place/said" 2>/dev/null && grep -qE -- "$1" "$place/said"
}
block "The console" sh
begin "The console" "1 (sh)"
TERM=xterm-256color in_tmux new-session -d -x 100 -y 30 "bash '$place/block'; echo over >'$place/over'"
until_so "the overview" shows 'jobs .* 2 completed'
in_tmux send-keys 2
until_so "the list of jobs" shows 'default-2 .*COMPLETED'
in_tmux send-keys Enter
until_so "the newest job with its log" shows 'good morning'
in_tmux send-keys q
until_so "the console is left" test -e "$place/over"

walk "Other ways in" sh 1
says '{"id":"default-3"}'
counts 100 'task [0-9]+$'

as_written pip install ./clients/python
walk "Other ways in" python 1
says "COMPLETED ["
for task in 0 1 2 3; do
    [ "$(cat "results/main/$task/words")" -eq "$(wc -w <examples/book.txt)" ] || fail "task $task counted wrong"
done
walk "Other ways in" python 2
says "has $DRUMLINE_CORES cores"

walk "Other ways in" sh 2
counts 8 '^task [0-7] of 8$'

# What the longer pages add.
block "The job file" sh 1 "$root/docs/jobs.md"
as_written bash -euo pipefail "$place/block"
counts 2 "^main\\[[01]\\] \\| $(hostname)\$"
block "By hand" python 1 "$root/docs/grpc.md"
as_written "$venv/bin/python" "$place/block"
says "good evening"

blocks=$(grep -cE '^```[a-z]+$' "$root/README.md")
[ "$walked" = "$blocks" ] || fail "README.md has $blocks blocks that name a language, and $walked were walked"
echo "the newcomer's path: $walked blocks of README.md do as shown"
