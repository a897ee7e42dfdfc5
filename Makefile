# make demo and make test each set up everything on a fresh machine (Python >= 3.11, pip, make).
PYTHON ?= python3
VENV   ?= .venv
BIN    := $(VENV)/bin
OUT    ?= out/demo
STAMP  := $(VENV)/.installed

.PHONY: demo test test-quick test-newer lint format package docs test-tl3 test-vllm test-packages real test-real atlas performance clean

# What was installed for development has all that the demo needs.
DEMO   := $(if $(wildcard $(STAMP)),$(STAMP),$(VENV)/.installed-demo)

# The first command's page is there to be looked at while the second adds to it.
demo: $(DEMO)
	$(BIN)/polycode analyze --metrics spectrum,action,capacity --limit 3000 --out $(OUT) --fresh
	$(BIN)/polycode compare --sites 'blocks.*.mlp.hook_post' --explainer ngram --limit 1000 --n-units 12 --out $(OUT) --fresh
	@echo "open $(OUT)/report.html"

# A worker for each processor and one more (tests/conftest.py), up to as many as memory is sure to
# hold. Compiled files are kept even where the environment says not to: each worker, and each program
# that tests start, would compile all of the package and of the tests anew.
PYTEST := PYTHONDONTWRITEBYTECODE= $(BIN)/python -m pytest -n auto --maxprocesses 8 --dist worksteal

# COVERAGE=1 adds the coverage of lines and branches, and fails under 90 %.
test: $(STAMP)
ifdef COVERAGE
	mkdir -p build
	$(PYTEST) --cov --cov-report=term:skip-covered --cov-report=json:build/coverage.json --cov-fail-under=90
	$(BIN)/python -c 'import json; t = json.load(open("build/coverage.json"))["totals"]; print("lines {percent_statements_covered:.1f} %, branches {percent_branches_covered:.1f} %".format(**t))'
else
	$(PYTEST)
endif

# What takes less than a tenth of a second each, of everything: for the loop at the desk.
test-quick: $(STAMP)
	$(PYTEST) -m 'not slow and not browser and not packaging and not server'

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

# Wheel and source archive in dist/, and the tests of what is in them and of a bare environment.
package: $(STAMP)
	rm -rf dist
	$(BIN)/python -m build --no-isolation
	$(BIN)/python -m pytest -m packaging

# With the gallery: reports of the embedded model, and of the networks that `make real` has got.
docs: $(STAMP)
	$(BIN)/python scripts/gallery.py
	$(BIN)/mkdocs build --strict

# The second major of TransformerLens, laid over the first.
test-tl3: $(STAMP)
	scripts/test_transformer_lens_3.sh $(abspath $(BIN)/python)

# The adapter for vLLM, in an environment of its own (build/vllm, 3.5 GB): its wheel brings another
# torch. Skipped with a sentence where it cannot be had.
test-vllm:
	scripts/test_vllm.sh $(PYTHON)

# Features of autoencoders beside SAELens and sparsify, and models of PEFT, laid over what is installed.
test-packages: $(STAMP)
	scripts/test_packages.sh $(abspath $(BIN)/python)

# The quick tests under the newest Python beside the one of $(VENV), where the machine has one.
test-newer:
	scripts/test_newer_python.sh

# Trained networks, natural text and photographs without a model hub, into build/real or
# $POLYCODE_CACHE (docs/real-networks.md). GEMMA=1 adds Gemma 3 270M, which has terms of its own.
real: $(STAMP)
	$(BIN)/python scripts/real_networks.py $(if $(GEMMA),--gemma)

# The adapters on them. What could not be had is said above, and its tests are skipped by name.
test-real: $(STAMP)
	-$(BIN)/python scripts/real_networks.py
	$(BIN)/python -m pytest -m real -rs tests/real

# The tables of docs/performance.md, one after the other: leave the machine alone meanwhile.
performance: $(STAMP)
	$(BIN)/python benchmarks/performance.py

# docs/atlas.md, of every network that make real got; about an hour on two cores, and it goes on.
atlas: $(STAMP)
	$(BIN)/python -m benchmarks.atlas

format: $(STAMP)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# The stamp is newer than what it was made from, so a changed pin rebuilds and an unchanged one costs nothing.
$(STAMP): pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(0 if sys.version_info >= (3, 11) else "Python 3.11 or newer is needed: make PYTHON=python3.11 ...")'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e ".[dev]"
	touch $@

# Fewer packages, and no tools: what `make demo` takes on a machine that has nothing yet.
$(VENV)/.installed-demo: pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(0 if sys.version_info >= (3, 11) else "Python 3.11 or newer is needed: make PYTHON=python3.11 ...")'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e ".[transformer-lens,report]"
	touch $@

clean:
	rm -rf $(VENV) .venv-newer out build dist site .coverage .pytest_cache .mypy_cache .ruff_cache
	find polycode_plugins tests benchmarks scripts examples -name __pycache__ -prune -exec rm -rf {} +
