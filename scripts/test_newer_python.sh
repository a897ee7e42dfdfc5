#!/usr/bin/env bash
# The quick tests under the newest Python from 3.12 on that this machine has, in a venv of its own.
# A machine without one skips them, and says so; NEWER_PYTHON names one that is not on the path.
set -euo pipefail
cd "$(dirname "$0")/.."

newer() {
  local candidate
  for candidate in "${NEWER_PYTHON:-}" python3.13 python3.12 python3 \
    "${PYENV_ROOT:-$HOME/.pyenv}"/versions/3.1[32]*/bin/python; do
    if [ -n "$candidate" ] && "$candidate" -c 'import sys, venv, ensurepip
sys.exit(sys.version_info < (3, 12))' 2>/dev/null; then
      command -v "$candidate"
      return
    fi
  done
}

python=$(newer)
if [ -z "$python" ]; then
  echo "skipped: no Python 3.12 or newer with venv among python3.13, python3.12, python3 and" \
    "pyenv's versions; NEWER_PYTHON=/path/to/python names one"
  exit 0
fi
"$python" --version
exec make test-quick PYTHON="$python" VENV=.venv-newer
