#!/usr/bin/env bash
# The TransformerLens tests again under TransformerLens 3.9, and whether both majors give the same.
# 3.9 is laid over the installed 4.x for the length of this script: no second torch is needed.
#
#   scripts/test_transformer_lens_3.sh [PYTHON]
set -euo pipefail
cd "$(dirname "$0")/.."
python=${1:-.venv/bin/python}
export TRANSFORMER_LENS_3=${TRANSFORMER_LENS_3:-$PWD/build/transformer-lens-3}

if [ ! -d "$TRANSFORMER_LENS_3/transformer_lens" ]; then
  "$python" -m pip install --quiet --disable-pip-version-check --no-deps \
    --target "$TRANSFORMER_LENS_3" transformer-lens==3.9.0 better-abc==0.0.3
fi

# Activations at 16 sites and spectra, computed under 3.9 and 4.x on the same weights, are compared.
"$python" -m pytest tests/adapters/transformer_lens/test_majors.py -rs | tee "$TRANSFORMER_LENS_3/majors.txt"
if grep -q SKIPPED "$TRANSFORMER_LENS_3/majors.txt"; then
  echo "the majors were not compared" >&2
  exit 1
fi

export PYTHONPATH=$TRANSFORMER_LENS_3${PYTHONPATH:+:$PYTHONPATH}
"$python" -c 'from importlib.metadata import version as v; assert v("transformer-lens")[:2] == "3.", v("transformer-lens")'
"$python" -m pytest tests/adapters/transformer_lens --ignore-glob='*majors.py'
