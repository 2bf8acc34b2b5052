#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Builds pushforward for the GPU at hand into FOLDER/pushforward, to be used by PYTHONPATH=FOLDER:
#
#     tests/gpu/build.sh FOLDER
#
# Installs nothing and needs no network. With cmake and pybind11 it is the project's own build;
# without, or where that fails, plain nvcc and g++ with the flags that CMakeLists.txt names, and
# the pybind11 headers that torch brings. HOW=plain leaves cmake out. PYTHON, CUDACXX and CXX name
# other programs than python3, nvcc and g++. Of the CPU's levels only the best of this processor is
# built, or the one that PF_CPU_LEVELS names.
set -euo pipefail
cd "$(dirname "$0")/../.."
mkdir -p "${1:?expected a folder}/work"
out=$(cd "$1" && pwd)
python=$(command -v "${PYTHON:-python3}")
cxx=${CXX:-g++}
nvcc=${CUDACXX:-$(command -v nvcc || echo /usr/local/cuda/bin/nvcc)}
export HOW=${HOW:-any}

ask() { "$python" -c "import sysconfig; $1"; }
suffix=$(ask 'print(sysconfig.get_config_var("EXT_SUFFIX"))')
# The GPU's architecture, or a common one where there is no GPU.
arch=$(ask 'import torch
print("%d%d" % torch.cuda.get_device_capability() if torch.cuda.is_available() else 90)')
# By the features that csrc/ops/table.cpp asks the processor for.
best_level() {
  local has
  has=" $(sed -n 's/^flags[^:]*: //p' /proc/cpuinfo 2>/dev/null | head -1) "
  all() { for f in "$@"; do [[ $has == *" $f "* ]] || return 1; done; }
  case $(uname -m) in x86_64 | amd64) ;; *) has="" ;; esac
  if ! all avx2 fma bmi2; then
    echo baseline
  elif ! all avx512f avx512bw avx512dq avx512vl avx512cd; then
    echo v3
  else
    echo v4
  fi
}
level=${PF_CPU_LEVELS:-$(best_level)}
# nvcc may be older than the GPU, whose driver then makes code of the PTX.
code=sm_$arch
[[ " $("$nvcc" --list-gpu-code | tr '\n' ' ')" == *" $code "* ]] || code=compute_80
echo "CPU level $level; $code"
echo "python $("$python" -V), nvcc $("$nvcc" --version | tail -1), architecture $arch"
[ -f "$(ask 'print(sysconfig.get_path("include"))')/Python.h" ] || echo "Python.h is missing"

with_cmake() {
  local config more=() architecture=()
  command -v cmake >/dev/null || return 1
  config=$(ask 'import pybind11; print(pybind11.get_cmake_dir())') || return 1
  command -v ninja >/dev/null && more=(-G Ninja)
  [ "$code" = "sm_$arch" ] && architecture=(-DPF_CUDA_ARCHITECTURES="$arch")
  cmake -S . -B "$out/work/cmake" "${more[@]}" -DPython_EXECUTABLE="$python" \
    -Dpybind11_DIR="$config" -DPF_CPU_LEVELS="$level" -DPF_CUDA=ON "${architecture[@]}" \
    -DCMAKE_CUDA_COMPILER="$nvcc" || return 1
  cmake --build "$out/work/cmake" --target _native --parallel "$(nproc)" || return 1
  cp "$out/work/cmake/_native$suffix" "$out/work/"
}

# A list that CMakeLists.txt sets.
listed() {
  tr '\n' ' ' <CMakeLists.txt | grep -o "set($1 [^)]*)" | sed -n "1s/^set($1 \(.*\))$/\1/p"
}

plain() {
  local o=$out/work/plain ops cpu v3 v4 gpu bind op file toolkit flags="" libraries=""
  rm -rf "$o" && mkdir -p "$o"
  ops=$(listed PF_OPS)
  cpu=$(listed PF_CPU_FLAGS)
  v3=$(listed PF_CPU_FLAGS_v3)
  v4=$(listed PF_CPU_FLAGS_v4)
  v4=${v4/\$\{PF_CPU_FLAGS_v3\}/$v3}
  gpu=$(grep -o -e '--fmad=[^"]*' CMakeLists.txt)
  [ "$level" = v3 ] && flags=$v3
  [ "$level" = v4 ] && flags=$v4
  bind=$(ask 'import os
try:
    import pybind11
    path = pybind11.get_include()
except ImportError:
    import torch
    path = os.path.join(os.path.dirname(torch.__file__), "include")
print("-I%s -I%s" % (sysconfig.get_path("include"), path))')
  toolkit=$("$nvcc" --dryrun -x cu -c /dev/null 2>&1 | sed -n 's/^#\$ TOP=//p')
  {
    for op in $ops; do
      echo "$nvcc -x cu -std=c++17 -O3 -ccbin $cxx -gencode=arch=compute_80,code=$code" \
        "$gpu -Xcompiler=-fPIC,-fvisibility=hidden -Icsrc -DPF_BACKEND=cuda" \
        "-c csrc/ops/$op.cpp -o $o/$op.cuda.o"
    done
    for op in $ops; do
      echo "$cxx -std=c++17 -fPIC -fvisibility=hidden -fvisibility-inlines-hidden $cpu $flags" \
        "-w -Icsrc -DPF_BACKEND=cpu_$level -c csrc/ops/$op.cpp -o $o/$op.$level.o"
    done
    for file in csrc/*.cpp csrc/backend/*.cpp csrc/ops/table.cpp; do
      echo "$cxx -std=c++17 -fPIC -fvisibility=hidden -O2 -Icsrc $bind -isystem $toolkit/include" \
        "-DPF_HAS_$level -DPF_WITH_CUDA '-DPF_CUDA_ARCHITECTURES=\"$arch\"'" \
        "-c $file -o $o/$(basename "$file" .cpp).o"
    done
  } >"$o/commands"
  tr '\n' '\0' <"$o/commands" | xargs -0 -P "$(nproc)" -I'{}' sh -c '{}' || return 1
  for file in lib64 lib targets/x86_64-linux/lib targets/sbsa-linux/lib; do
    [ -f "$toolkit/$file/libcudart_static.a" ] && libraries="$toolkit/$file" && break
  done
  "$cxx" -shared -o "$out/work/_native$suffix" "$o"/*.o "-L$libraries" -lcudart_static -ldl -lrt \
    -lpthread
}

if [ "$HOW" != plain ] && with_cmake; then
  echo "built with cmake"
else
  plain
  echo "built with plain commands"
fi

# What the package asks the installation for is its version.
version=$(sed -n 's/^version = "\(.*\)"$/\1/p' pyproject.toml)
rm -rf "$out/pushforward"
cp -R python/pushforward "$out/"
rm -f "$out/pushforward/_native".*.so
cp "$out/work/_native$suffix" "$out/pushforward/"
mkdir -p "$out/pushforward-$version.dist-info"
printf 'Metadata-Version: 2.1\nName: pushforward\nVersion: %s\n' "$version" \
  >"$out/pushforward-$version.dist-info/METADATA"
