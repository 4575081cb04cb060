#!/usr/bin/env bash
# Tries an NVIDIA GPU: builds, runs the kernels' tests and whole models on it and on the CPU, which must
# give the same bytes, measures, and writes one report.
#
#   tools/try_gpu.sh [FOLDER]
#
# FOLDER (build/try-gpu) takes the builds and report.md. nvcc comes from the path, or from PyPI.
# The environment may say:
#   DEVICE=cuda:1            the GPU (cuda)
#   PAIR=demo                models to measure: e2b (synthetic, 3 GB), or demo for a short try
#   LLAMA_CPP=DIR            sources of llama.cpp to measure beside it; none: they are cloned;
#                            no: it is left out
# A step that fails is a line of the report, and those that do not need it go on; the exit code is 1
# then.
set -uo pipefail
cd "$(dirname "$0")/.."
folder=$(realpath -m "${1:-build/try-gpu}")
device=${DEVICE:-cuda} pair=${PAIR:-e2b}
mkdir -p "$folder/logs" && rm -f "$folder/logs/"*.log || exit 1
report=$folder/report.md failed=0
python=$folder/venv/bin/python gemtp=$folder/venv/bin/gemtp
export GEMTP_CACHE_DIR=$folder/cache

# say LINE...: lines of the report.
say() { printf '%s\n' "$@" | tee -a "$report"; }

# step NAME COMMAND...: runs the command, with its output in a log, and says how it ended.
step() {
  local name=$1 begin=$SECONDS status=0
  log=$folder/logs/${name//[^a-zA-Z0-9]/-}.log
  shift
  "$@" >"$log" 2>&1 || status=$?
  if [[ $status -eq 0 ]]; then
    say "| $name | passed | $((SECONDS - begin)) s |"
  else
    say "| $name | **failed** ($status; $(basename "$log")) | $((SECONDS - begin)) s |"
    failed=1
  fi
  return "$status"
}

# need NAME COMMAND...: a step without which nothing else can be done.
need() {
  step "$@" && return
  say "" "The end of what it says:" "" '```' "$(tail -n 20 "$log")" '```'
  finish
}

# shown TITLE COMMAND...: a section of the report with what the command prints.
shown() {
  local status=0
  say "" "## $1" "" '```' "\$ $(basename "$2") ${*:3}"
  shift
  "$@" 2>&1 | tail -n 60 | tee -a "$report" || status=$?
  say '```'
  [[ $status -eq 0 ]] && return
  say "" "It **failed** ($status)."
  failed=1
}

finish() {
  say "" "Report: $report"
  exit "$failed"
}

: >"$report"
say "# gemtp on a GPU, $(date -u +%F)" "" "- gemtp $(git describe --always --dirty 2>/dev/null || echo '?')"
say "- $(uname -srm), $(sed -n 's/^model name\s*: //p' /proc/cpuinfo | head -n 1), $(nproc) threads"
gpu="nvidia-smi is not here"
if command -v nvidia-smi >/dev/null; then
  gpu=$(nvidia-smi --query-gpu=name,driver_version,memory.total,pci.bus_id --format=csv,noheader 2>&1)
fi
say "- $gpu" "" "| | | |" "|---|---|---|"

environment() {
  python3 -m venv "$folder/venv" && "$python" -m pip install -q cmake ninja
}
need "a Python environment" environment
export PATH=$folder/venv/bin:$PATH
if ! "$python" tools/cuda_kernels.py --find-tools >/dev/null 2>&1; then
  need "nvcc from PyPI" "$python" -m pip install -q \
    $(grep '^gpu = ' pyproject.toml | grep -oE 'nvidia[^"]+')
fi
kernels=$folder/kernels # what is there and still right is not made again
need "kernels for CUDA" "$python" tools/cuda_kernels.py --out "$kernels" --jobs "$(nproc)"
need "package" "$python" -m pip install -q '.[serve]' \
  --config-settings=cmake.define.GEMTP_CUDA_KERNELS="$kernels"
build() {
  cmake -S . -B "$folder/build" -G Ninja -DCMAKE_BUILD_TYPE=Release -DGEMTP_BUILD_TESTS=ON \
    -DGEMTP_CUDA_KERNELS="$kernels" && cmake --build "$folder/build" --target gemtp_gpu_tests
}
step "tests' build" build
need "$device opens and proves that it is exact" "$gemtp" info --self-test "$device"

# On the GPU, against the scalar kernels: every kernel and format, and passes through whole models.
tests=$folder/build/tests/cpp/gemtp_gpu_tests
step "kernels and passes" env GEMTP_TEST_DEVICE="$device" "$tests" --test-suite-exclude=long \
  --test-case-exclude='gpu self-test*' # which has faults of the emulated one
if command -v compute-sanitizer >/dev/null; then
  for tool in memcheck racecheck synccheck; do
    step "compute-sanitizer $tool" env GEMTP_TEST_DEVICE="$device" compute-sanitizer --tool "$tool" \
      --error-exitcode 9 "$tests" --test-case='gpu matmul*,gpu attention*,gpu heads*,gpu norm*'
  done
else
  say "| compute-sanitizer | not here | |"
fi

# Texts, logits, log-probabilities, drafts and sessions of all architectures, types, samplings and ways to
# draft: on the CPU and on the GPU.
step "hashes on the CPU" env GEMTP_DEVICE=cpu "$python" tools/hash_outputs.py "$folder/cpu.json"
step "the same hashes on the GPU" env GEMTP_DEVICE="$device" "$python" tools/hash_outputs.py \
  "$folder/gpu.json" --compare "$folder/cpu.json"

if [[ $pair == demo ]]; then
  models=(demo --drafter demo)
else
  [[ -e $folder/$pair/drafter.gguf ]] ||
    need "synthetic $pair" "$gemtp" synth "$pair" --out "$folder/$pair"
  models=("$folder/$pair/target.gguf" --drafter "$folder/$pair/drafter.gguf")
fi
texts() { # 512 tokens, greedy and sampled, with and without drafts: the same from both
  local where options
  for options in "" "--draft 0" "--temperature 1 --seed 7" "--temperature 1 --seed 7 --draft 0"; do
    for where in cpu "$device"; do
      # shellcheck disable=SC2086
      "$gemtp" generate "${models[@]}" "def f(x):" --max-tokens 512 --ignore-eos $options \
        --device "$where" --quiet >"$folder/text-${where%%:*}" || return 1
    done
    cmp "$folder/text-cpu" "$folder/text-${device%%:*}" || return 1
  done
}
step "512 tokens, greedy and sampled, on both" texts

shown "What it costs" "$gemtp" bench "${models[@]}" --device "$device"
"$gemtp" bench "${models[@]}" --device "$device" --json >"$folder/bench.json" 2>/dev/null || failed=1
shown "The CPU beside it" "$gemtp" bench "${models[@]}" --device cpu --only decode,generate

if [[ ${LLAMA_CPP:-} != no && $pair != demo ]]; then
  sources=${LLAMA_CPP:-$folder/llama.cpp}
  [[ -d $sources ]] ||
    step "llama.cpp's sources" git clone -q --depth 1 https://github.com/ggml-org/llama.cpp "$sources"
  llama() {
    cmake -S "$sources" -B "$folder/llama" -G Ninja -DCMAKE_BUILD_TYPE=Release -DGGML_CUDA=ON \
      -DLLAMA_CURL=OFF && cmake --build "$folder/llama" --target llama-server
  }
  if step "llama.cpp's build" llama; then
    export GEMTP_DEVICE=$device
    shown "llama.cpp on the same GPU" "$python" tools/bench_peers.py "${models[0]}" "${models[2]}" \
      --llama-server "$folder/llama/bin/llama-server" --server-args "-ngl 999 -ngld 999" --depths 2,3
  fi
fi
say "" "Figures for programs: $folder/bench.json"
finish
