#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Everything that needs a GPU, on a machine that has one, in under ten minutes:
#
#     tests/gpu/run.sh              builds, tests, measures, looks for bad accesses and races
#     tests/gpu/run.sh --rehearse   the same without a GPU, to see that the script itself works
#
# Needs Python >= 3.10 with torch >= 2.11 for CUDA, pytest, hypothesis, and nvcc; see build.sh for
# the rest. Installs nothing and needs no network. A part that fails does not stop the others.
# The benchmarks' records go to benchmarks/results/<device>/, the log and a summary to its folder
# run/; OUT names another folder than benchmarks/results. PYTHON names another interpreter, BUILT a
# folder that build.sh filled before.
set -u
cd "$(dirname "$0")/../.." || exit 2
root=$PWD
python=$(command -v "${PYTHON:-python3}") || { echo "no python3"; exit 2; }
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
budget=580
summary=$work/summary.tsv
: >"$summary"

ask() { "$python" -c "$@" 2>/dev/null; }

# Runs a part of the whole under a time limit and notes how it went: part NAME SECONDS COMMAND ...
part() {
  local name=$1 limit=$2 left=$((budget - SECONDS)) began=$SECONDS status=0 word
  shift 2
  ((limit > left)) && limit=$left
  echo "==== $name (at most $limit s)"
  if ((limit < 5)); then
    word="no time left"
  else
    timeout -s INT -k 5 "$limit" "$@" || status=$?  # pytest then says what has failed so far
    word="exit status $status"
    ((status == 0)) && word=ok
    ((status == 124 || status == 137)) && word="stopped after $limit s"
  fi
  printf '%s\t%s\t%s\n' "$name" "$word" "$((SECONDS - began))" >>"$summary"
  [ "$word" = ok ]
}

absent() {
  echo "==== $1: $2"
  printf '%s\t%s\t0\n' "$1" "left out: $2" >>"$summary"
}

sanitize() {
  if [ -z "$sanitizer" ]; then
    absent "$1" "compute-sanitizer was not found"
  else
    # Without torch's cache every tensor is an allocation of its own, whose end is watched.
    part "$1" 70 env PYTORCH_NO_CUDA_MEMORY_CACHING=1 "$sanitizer" --tool "$1" \
      --error-exitcode 9 "$python" tests/gpu/sanitizer_work.py "$1"
  fi
}

everything() {
  local site files name
  part "machine" 30 "$python" -c '
import platform, shutil, subprocess, torch
print("Python", platform.python_version(), "torch", torch.__version__, "CUDA", torch.version.cuda)
if shutil.which("nvidia-smi"):
    subprocess.run(["nvidia-smi"])
if torch.cuda.is_available():
    print(torch.cuda.get_device_name(), torch.cuda.get_device_properties(0))
'
  site=${BUILT:-$work/site}
  [ -n "${BUILT:-}" ] || part "build" 240 tests/gpu/build.sh "$work/site" || return
  export PYTHONPATH=$site PYTHONDONTWRITEBYTECODE=1
  part "import" 60 "$python" -c '
import pathlib, sys
import pushforward as pf
print(*(f"{k}: {v}" for k, v in pf.build_info().items()), sep="\n")
if not pathlib.Path(pf.__file__).is_relative_to(sys.argv[1]):
    sys.exit(f"another installation is in the way: {pf.__file__}")
if pf.build_info()["CUDA backend"] == "not built":
    sys.exit("the CUDA backend was not built")
' "$site" || return
  # The tests that have a case for the GPU, and the digests; those of the tools do not run here.
  files=$(grep -l cuda tests/test_*.py | grep -v -E 'test_(architecture|benchmarks|cli|docs|wheel)')
  # shellcheck disable=SC2086
  part "tests" 110 "$python" -m pytest -q -p no:cacheprovider -k "cuda or gpu or golden" \
    tests/gpu $files
  # Before what may take all the time that is left.
  part "benchmarks" 180 "$python" benchmarks/bench_cuda.py "${quick[@]}"
  sanitize memcheck
  sanitize racecheck
  # The suites of the CPU, the native module's work done on the GPU.
  for name in accept ops markov_run lattice_ising lattice_phi4 lattice_sums mcmc targets; do
    part "$name" 60 "$python" tests/gpu/run_suite.py -q -p no:cacheprovider "tests/test_$name.py"
  done
}

closing() {
  echo
  echo "==== summary"
  awk -F '\t' '{ printf "%-14s %5s s  %s\n", $1, $3, $2 }' "$summary"
  awk -F '\t' '$2 != "ok" && $2 !~ /^left out/ { failed = 1 } END { exit failed }' "$summary"
}

device=$(ask 'import torch; print(torch.cuda.get_device_name())')
sanitizer=$(command -v compute-sanitizer || ls /usr/local/cuda/bin/compute-sanitizer 2>/dev/null)
quick=()
if [ -z "$device" ]; then
  if [ "${1:-}" != --rehearse ]; then
    echo "torch finds no GPU; --rehearse goes through the parts without one"
    exit 2
  fi
  device=rehearsal quick=(--quick)
  export OUT=${OUT:-$work/out}
fi
slug=$(printf '%s' "$device" | tr '[:upper:]' '[:lower:]' | tr -cs 'a-z0-9' '-' | sed 's/-*$//')
folder=${OUT:-benchmarks/results}/$slug/run
mkdir -p "$folder"

{
  everything
  closing
} 2>&1 | tee "$work/log"
status=${PIPESTATUS[0]}

# What is kept names no folder of this machine.
prefix=$(ask 'import sys; print(sys.prefix)')
sed -e "s#$work#<build>#g" -e "s#$root#.#g" -e "s#$prefix#<python>#g" -e "s#${HOME:-/root}#~#g" \
  "$work/log" >"$folder/log.txt"
ask 'import json, sys
rows = [line.rstrip("\n").split("\t") for line in open(sys.argv[1])]
parts = [{"part": a, "result": b, "seconds": int(c)} for a, b, c in rows]
print(json.dumps({"device": sys.argv[2], "parts": parts}, indent=1))' \
  "$summary" "$device" >"$folder/summary.json"
echo "written to $folder"
exit "$status"
