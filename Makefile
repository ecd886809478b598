# make run      make the environment, install, start the server with nothing configured, under ./data
# make test     install what the tests need and run everything, fast first
# make check    formatting, lint, types and the fast tests: under three minutes
# make bench    all benches in their short form; make bench-NAME: one of them, for figures of record
# make drill    the failure scenarios and their report, in ./artifacts/drill
# make docs     what is generated in docs/        make clean    everything that was built, not ./data
# make pins     constraints.txt from the present environment

SHELL := bash
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
FAST := not slow and not service
.DEFAULT_GOAL := help
.PHONY: help run test check lint fast rest programs bench drill docs pins clean

help:
	@sed -n 's/^# \(make .*\)/\1/p' Makefile

$(VENV)/ready: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "Python 3.11 or newer is needed; name one: make PYTHON=python3.12 …"; exit 1; }
	@$(PYTHON) -m venv $(VENV) || { echo "venv is missing: apt-get install python3-venv"; exit 1; }
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable .
	@touch $@

$(VENV)/ready-tests: $(VENV)/ready
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[test,load,bench,postgres]'
	@touch $@

$(VENV)/ready-bench: $(VENV)/ready-tests
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[bench]'
	@touch $@

run: $(VENV)/ready
	@exec $(BIN)/secureconnect serve --dev --data-dir data

test: lint fast rest

check: lint fast

lint: $(VENV)/ready-tests
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

fast: $(VENV)/ready-tests
	$(BIN)/python -m pytest -m '$(FAST)'

rest: $(VENV)/ready-tests programs
	$(BIN)/python -m pytest -m 'slow or service'

programs:
	@bash .ci/programs

bench: $(VENV)/ready-bench
	$(BIN)/python -m bench --short

bench-%: $(VENV)/ready-bench
	$(BIN)/python -m bench $*

drill: $(VENV)/ready-tests programs
	$(BIN)/secureconnect drill --report artifacts/drill

docs: $(VENV)/ready
	$(BIN)/secureconnect config show --markdown > docs/settings.md

pins: $(VENV)/ready-bench
	$(BIN)/python -m pip freeze --exclude-editable | grep == > constraints.txt

clean:
	rm -rf $(VENV) build dist artifacts .mypy_cache .ruff_cache .pytest_cache .hypothesis .coverage*
	find src tests bench -name __pycache__ -type d -prune -exec rm -rf {} +
