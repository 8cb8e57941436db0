# make demo    the whole story on the embedded teacher, in an isolated environment (.venv) made from nothing
# make test    the tests
# make test-nightly  property tests with random seeds and 20 times as many examples
# make test-oldest  the tests with the oldest versions that pyproject.toml allows, in .venv-oldest-* (exports need a newer
#              torch: OLDEST_TORCH=torch==2.12.0)
# make golden  write tests/pruning/golden_runs.json again, after a change that was meant to move its values
# make mutate  mutate the code and count how many of the mutants the tests kill: MODULE="gates masks" SAMPLE=50 SEED=0
# make docs    the documentation site, in site/
# make dist    build the wheel, check it and use it outside of the checkout
# make extras  install each extra of pyproject.toml alone and run its command (EXTRAS="onnx av": only these)
# make check   lint, format, types, documentation, packages and tests: what .ci/run runs
#
# The environment is made once and used again until pyproject.toml or constraints.txt changes.
# On Linux without a GPU, this spares the gigabytes of CUDA libraries that torch brings along:
#   make demo TORCH_INDEX=https://download.pytorch.org/whl/cpu

PYTHON ?= python3
VENV ?= .venv
TORCH_INDEX ?=
# Interpreter of make test-oldest
OLDEST_PYTHON ?= python3.10
# Further arguments of pytest: make test PYTEST_ARGS="-k surgery -x"
PYTEST_ARGS ?=
# Extras of make extras; all of them by default
EXTRAS ?=
# Options of make mutate: names of modules from tests/mutation/modules.toml (all of them by default), number of mutants
# per module (0 for all) and the seed of the sample
MODULE ?=
SAMPLE ?= 50
SEED ?= 0

BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check
TORCH := $(shell sed -n 's/^torch==[^ ;]*/&/p' constraints.txt)
IN_PARALLEL := -n auto --maxprocesses=4
PYTEST := $(BIN)/python -m pytest $(IN_PARALLEL)
# The first bound of torch is that of slimvox itself, the others are those of extras.
OLDEST_TORCH ?= $(shell sed -n 's/^ *"torch>=\([0-9.]*\)".*/torch==\1/p' pyproject.toml | head -1)
OLDEST := .venv-oldest-$(subst torch==,,$(OLDEST_TORCH))

.DEFAULT_GOAL := help
.PHONY: help demo setup setup-dev test test-slow test-nightly test-oldest golden mutate lint format format-check types docs dist extras check versions clean

help:
	@sed -n '/^# make/s/^# //p' Makefile

demo: setup
	$(BIN)/slimvox demo

test: setup-dev
	$(PYTEST) $(PYTEST_ARGS)

test-slow: setup-dev
	$(PIP) install --quiet -c constraints.txt -e ".[browser]"
	$(PYTEST) -m slow $(PYTEST_ARGS)

test-nightly: setup-dev
	SLIMVOX_HYPOTHESIS=nightly $(PYTEST) -m hypothesis $(PYTEST_ARGS)

test-oldest: $(OLDEST)/.installed
	$(OLDEST)/bin/python -m pytest $(IN_PARALLEL) $(PYTEST_ARGS)

golden: setup-dev
	$(BIN)/python tests/golden_runs.py

mutate: setup-dev
	$(PIP) install --quiet -c constraints.txt -e ".[mutation]"
	$(BIN)/python tests/mutation/run.py $(MODULE) --sample $(SAMPLE) --seed $(SEED)

lint: setup-dev
	$(BIN)/ruff check .
	$(BIN)/lint-imports

format: setup-dev
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

format-check: setup-dev
	$(BIN)/ruff format --check .

types: setup-dev
	$(BIN)/mypy

docs: setup-dev
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet

dist: setup-dev
	$(PIP) install --quiet -c constraints.txt -e ".[release]"
	PYTHON=$(BIN)/python .ci/wheel

extras: dist
	PYTHON=$(PYTHON) TORCH_INDEX=$(TORCH_INDEX) .ci/extras $(EXTRAS)

check: lint format-check types docs dist test

versions: setup-dev
	@$(BIN)/python --version
	@$(PIP) list --format=freeze

clean:
	rm -rf $(VENV) .venv-oldest-* build dist site .mypy_cache .pytest_cache .ruff_cache .hypothesis

setup: $(VENV)/.installed

setup-dev: $(VENV)/.installed-dev

# torch goes first and alone, so that nothing else's wishes choose the build.
$(VENV)/.installed: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10) and "slimvox needs Python 3.10 or later: make PYTHON=... names another one")'
	$(PYTHON) -m venv $(VENV)
	$(PIP) install --quiet $(if $(TORCH_INDEX),--extra-index-url $(TORCH_INDEX)) "$(TORCH)"
	$(PIP) install --quiet -c constraints.txt -e .
	@touch $@

$(VENV)/.installed-dev: $(VENV)/.installed
	$(PIP) install --quiet -c constraints.txt -e ".[dev,docs,tensorboard,training,openvino,av]"
	@touch $@

$(OLDEST)/.installed: pyproject.toml
	$(OLDEST_PYTHON) -m venv --clear $(OLDEST)
	$(OLDEST)/bin/python -m pip install --quiet uv $(if $(TORCH_INDEX),--extra-index-url $(TORCH_INDEX)) "$(OLDEST_TORCH)"
	$(OLDEST)/bin/uv pip install --quiet --python $(OLDEST)/bin/python --resolution lowest-direct "$(OLDEST_TORCH)" -e ".[dev,tensorboard,training]"
	@touch $@
