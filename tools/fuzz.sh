#!/usr/bin/env bash
# Runs all fuzz targets in turn for as many hours, in build/fuzz:
#
#   tools/fuzz.sh HOURS [TARGET...]
#
# The corpora grow in build/fuzz/fuzz/corpus, from one run to the next. Finds are made small and kept
# in build/fuzz/fuzz/finds; one that is mended belongs into tests/fuzz/found/TARGET. Needs Debian's
# clang, libclang-rt-14-dev and llvm, and of $PYTHON (python3) the installed package with [test] and
# [fuzz]. Prints executions and edges of each target.
set -euo pipefail
[[ ${1:-} =~ ^[0-9]+([.][0-9]+)?$ ]] || { echo "usage: tools/fuzz.sh HOURS [TARGET...]" >&2; exit 2; }
python=${PYTHON:-python3}
cd "$(dirname "$0")/.."
hours=$1
shift
cmake -S . -B build/fuzz -G Ninja -DCMAKE_C_COMPILER=clang -DCMAKE_CXX_COMPILER=clang++ \
  -DCMAKE_BUILD_TYPE=RelWithDebInfo -DCMAKE_CXX_FLAGS_RELWITHDEBINFO=-O1 \
  -DCMAKE_C_FLAGS_RELWITHDEBINFO=-O1 -DGEMTP_SANITIZE=address,undefined,fuzzer-no-link \
  -DGEMTP_FUZZ=ON -DGEMTP_CUDA=OFF -DGEMTP_EMULATED_GPU=OFF >/dev/null
cmake --build build/fuzz --target gemtp_fuzz_targets
# Rounds of ten minutes a target at most, so that each has its turn whenever this is ended.
"$python" tests/fuzz/run.py build/fuzz --hours "$hours" --minimize ${1:+--targets "$@"}
