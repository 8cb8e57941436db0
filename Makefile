# make demo    the whole story on the embedded teacher, in an isolated environment (.venv) made from nothing
# make test    the tests
# make check   lint, format, types and tests: what .ci/run runs
#
# The environment is made once and used again until pyproject.toml or constraints.txt changes.
# On Linux without a GPU, this spares the gigabytes of CUDA libraries that torch brings along:
#   make demo TORCH_INDEX=https://download.pytorch.org/whl/cpu

PYTHON ?= python3
VENV ?= .venv
TORCH_INDEX ?=
# Further arguments of pytest: make test PYTEST_ARGS="-k surgery -x"
PYTEST_ARGS ?=

BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check
TORCH := $(shell sed -n 's/^torch==[^ ;]*/&/p' constraints.txt)
PYTEST := $(BIN)/python -m pytest -n auto --maxprocesses=4

.DEFAULT_GOAL := help
.PHONY: help demo setup setup-dev test test-slow lint format format-check types check versions clean

help:
	@sed -n '/^# make/s/^# //p' Makefile

demo: setup
	$(BIN)/slimvox demo

test: setup-dev
	$(PYTEST) $(PYTEST_ARGS)

test-slow: setup-dev
	$(PYTEST) -m slow $(PYTEST_ARGS)

lint: setup-dev
	$(BIN)/ruff check .

format: setup-dev
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

format-check: setup-dev
	$(BIN)/ruff format --check .

types: setup-dev
	$(BIN)/mypy

check: lint format-check types test

versions: setup-dev
	@$(BIN)/python --version
	@$(PIP) list --format=freeze

clean:
	rm -rf $(VENV) build dist .mypy_cache .pytest_cache .ruff_cache .hypothesis

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
	$(PIP) install --quiet -c constraints.txt -e ".[dev,tensorboard,training]"
	@touch $@
