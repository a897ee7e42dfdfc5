#!/usr/bin/env bash
# Beside packages that the project does not depend on: activations of autoencoders beside those of
# SAELens and sparsify, and models of PEFT. They are laid over what is installed for the length of
# this script (SAELens needs TransformerLens 3; no second torch).
#
#   scripts/test_packages.sh [PYTHON]
set -euo pipefail
cd "$(dirname "$0")/.."
python=${1:-.venv/bin/python}
overlay=${FOREIGN_PACKAGES:-$PWD/build/foreign-packages}
pins=(
  sae-lens==6.54.12 eai-sparsify==1.3.3 transformer-lens==3.9.0 better-abc==0.0.3
  babe==0.0.8 simple-parsing==0.1.9 docstring-parser==0.18.0 nltk==3.10.4 natsort==8.4.0
  schedulefree==1.4.1 tenacity==9.2.1 python-dotenv==1.2.4 peft==0.21.2
)

if [ "$(cat "$overlay/.pins" 2>/dev/null)" != "${pins[*]}" ]; then
  if ! "$python" -m pip install --quiet --disable-pip-version-check --no-deps --upgrade \
    --target "$overlay" "${pins[@]}"; then
    echo "SKIPPED: SAELens, sparsify and PEFT cannot be had here, so nothing is compared" >&2
    exit 0
  fi
  echo "${pins[*]}" >"$overlay/.pins"
fi

export FOREIGN_PACKAGES=$overlay PYTHONPATH=$overlay${PYTHONPATH:+:$PYTHONPATH}
"$python" -m pytest tests/explainers/units/autoencoder/test_packages.py tests/adapters/test_peft.py \
  -rs | tee "$overlay/tests.txt"
if grep -q SKIPPED "$overlay/tests.txt"; then
  echo "not all was compared" >&2
  exit 1
fi
