#!/usr/bin/env bash
# Builds the package with ASan and UBSan beside the normal build, and runs a sample of the operations' tests on it.
# Usage: tests/sanitize.sh [build folder] [pytest arguments]
set -euo pipefail
cd "$(dirname "$0")/.."
build=${1:-build/sanitize}
[ $# -gt 0 ] && shift
bin=$PWD/.venv/bin
case $build in /*) ;; *) build=$PWD/$build ;; esac

echo "building with sanitizers in $build ..."
rm -rf "$build/lib" && mkdir -p "$build"
SIAMESE_FAST_SANITIZE=address,undefined "$bin/python" setup.py --quiet build \
    --build-base "$build" --build-lib "$build/lib" --build-temp "$build/temp" >"$build/build.log" 2>&1 || { cat "$build/build.log"; exit 1; }

# The sanitizer must be loaded before Python, with libstdc++ so that it sees exceptions thrown. Python itself leaks by design.
runtime="$(g++ -print-file-name=libasan.so) $(g++ -print-file-name=libstdc++.so)"
sanitized() {
    LD_PRELOAD=$runtime ASAN_OPTIONS=detect_leaks=0 UBSAN_OPTIONS=print_stacktrace=1 \
        PYTHONPATH=$build/lib OMP_NUM_THREADS=2 "$@"
}
# `pytest` and not `python -m pytest`, which would import the package of this folder.
(cd "$build" && sanitized "$bin/python" -P -c "
import siamese_fast._native as native
assert '$build/lib' in native.__file__, f'not the sanitized build: {native.__file__}'")
sanitized "$bin/pytest" -q -p no:cacheprovider -p no:benchmark -m "sanitize and not slow" tests "$@"
