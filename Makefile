# Everything is one command. A fresh machine needs Python 3.11, make and the network for pip.

BIN := .venv/bin
# Tests run in so many processes.
JOBS ?= auto
PYTEST = $(BIN)/python -m pytest -n $(JOBS) --maxprocesses=4
COVERAGE = --cov --cov-report=term:skip-covered --cov-fail-under=90

.PHONY: help venv demo test test-all check format docs clean

help:  ## List the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-10s %s\n", $$1, $$2}'

venv: .venv/.installed-dev  ## Make .venv, with everything that development needs

demo: .venv/.installed  ## Restore a few pictures, into demo/
	$(BIN)/python examples/demo.py

test: check  ## What must be green before a commit: check, tests, examples, coverage
	$(PYTEST) $(COVERAGE)

test-all: check  ## The same with the slow tests, Ray, object storage, datasets and accelerate
	$(BIN)/python -m pip install --quiet -c constraints.txt -e ".[dev,ray,remote,train]"
	$(PYTEST) $(COVERAGE) -m ""

check: .venv/.installed-dev  ## Format, lint, types, layers
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: .venv/.installed-dev  ## Bring the code into its form
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

docs: .venv/.installed-dev  ## Run the examples in docstrings and pages
	$(BIN)/python -m pytest src tests/test_docs.py

clean:  ## Remove what was built or cached; .venv stays
	rm -rf build dist demo .coverage .hypothesis .*_cache src/*.egg-info
	find src tests examples benchmarks recipes -name __pycache__ -prune -exec rm -rf {} +

$(BIN)/python:
	@for python in $(PYTHON) python3.11 python3 python3.14 python3.13 python3.12; do \
	    if $$python -c 'import sys, ensurepip; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then \
	        echo "making .venv with $$($$python --version)"; exec $$python -m venv .venv; \
	    fi; \
	done; \
	echo "sfumato needs Python 3.11 or newer with its venv module; python3 is" \
	    "$$(python3 --version 2>&1 || echo missing)." >&2; \
	echo "Install it (Debian, Ubuntu: apt install python3 python3-venv), or say where it is:" \
	    "make PYTHON=/path/to/python3.11" >&2; \
	exit 1

# The stamps are newer than all that they depend on; that of development serves for the demo too.
.venv/.installed: pyproject.toml constraints.txt | $(BIN)/python
	$(BIN)/python -m pip install --quiet -c constraints.txt -e ".[demo]"
	@touch $@

.venv/.installed-dev: pyproject.toml constraints.txt | $(BIN)/python
	$(BIN)/python -m pip install --quiet -c constraints.txt -e ".[dev]"
	@touch .venv/.installed $@
