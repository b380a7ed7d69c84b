#!/usr/bin/env bash
# The S3 server that tests speak to: s3s-fs, as published, built into target/tools once.
set -euo pipefail
root=$(cd "$(dirname "$0")/../.." && pwd)
target=${CARGO_TARGET_DIR:-$root/target}
version=0.14.1
binary=$target/tools/bin/s3s-fs
if [ -x "$binary" ] && [ "$("$binary" --version)" = "s3s-fs $version" ]; then
    exit 0
fi
# What it is built of is not needed afterwards, and much.
building=$(mktemp -d "$target/tools-XXXXXX")
trap 'rm -rf "$building"' EXIT
CARGO_PROFILE_DEV_DEBUG=false cargo install s3s-fs --version "$version" --features binary --locked --debug --quiet \
    --root "$target/tools" --target-dir "$building" ||
    { echo "error: s3s-fs $version could not be built: the tests of S3 need it" >&2; exit 1; }
