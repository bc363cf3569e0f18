#!/usr/bin/env bash
# Everything that needs a GPU, in one command of less than 9 minutes: benchmarks/gpu.sh OUTPUT [WHEELS]
#
# Builds the extension with its CUDA half, runs the operations' suite on the GPU, compute-sanitizer on small sizes, then the
# timings against whatever peers can be imported. Nothing is downloaded: WHEELS is a folder of wheels to install first. JSON and
# logs go to OUTPUT. PYTHON names the interpreter, which must have torch (CUDA), triton and pybind11.
set -uo pipefail
if [ $# -lt 1 ] || [ $# -gt 2 ]; then
  echo "usage: benchmarks/gpu.sh OUTPUT [WHEELS]" >&2
  exit 2
fi
mkdir -p "$1"
output=$(cd "$1" && pwd)
wheels=${2:+$(cd "$2" && pwd)}
cd "$(dirname "$0")/.." || exit 2
python=${PYTHON:-python3}
export PYTHONPATH=$PWD${PYTHONPATH:+:$PYTHONPATH}
failed=0

step() { # name, seconds, command...
  local name=$1 seconds=$2
  shift 2
  echo "== $name (at most $seconds s)"
  timeout "$seconds" "$@" >"$output/$name.log" 2>&1
  local status=$?
  tail -n 5 "$output/$name.log"
  if [ $status -ne 0 ]; then
    echo "== $name FAILED with status $status, see $output/$name.log"
    failed=1
  fi
  return $status
}

"$python" benchmarks/gpu.py present || exit 3
if [ -n "$wheels" ]; then
  step wheels 40 "$python" -m pip install --no-index --no-deps --find-links "$wheels" "$wheels"/*.whl
fi
arch=$("$python" benchmarks/gpu.py architecture)
step build 130 env SIAMESE_FAST_CUDA=1 SIAMESE_FAST_CUDA_ARCHS="$arch" NPY_NUM_BUILD_JOBS="$(nproc)" "$python" setup.py -q build_ext --inplace || exit 1
step check 120 "$python" benchmarks/gpu.py check --output "$output/check.json"
if command -v compute-sanitizer >/dev/null; then
  for tool in memcheck racecheck initcheck; do
    step "$tool" 30 compute-sanitizer --tool "$tool" --error-exitcode 9 "$python" benchmarks/gpu.py check --small
  done
else
  echo "== compute-sanitizer is not here: nothing was checked by it"
fi
step time 150 "$python" benchmarks/gpu.py time --output "$output/time.json"
exit $failed
