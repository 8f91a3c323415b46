# make run: a browser page that distils.   make test: everything that is checked.   Both do `make setup` by themselves.

SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
.PHONY: help setup run seminar test lint types coverage mutants chromium results gallery clean

PYTHON ?= python3
ADDRESS ?= 127.0.0.1
PORT ?= 8501
BIN := .venv/bin
STAMP := .venv/.ready

help:
	@echo "make setup   create .venv and install what is needed"
	@echo "make run     open Limbeck in the browser"
	@echo "make seminar open it to a room: make seminar ADDRESS=0.0.0.0; the presenter leads, the others follow"
	@echo "make test    lint, check types and run all tests, the browser's included"
	@echo "make lint    lint and check the format only"
	@echo "make types   check the type annotations only"
	@echo "make coverage  run all tests and say which lines they reach"
	@echo "make mutants   change the core formulas one by one and say which changes no test notices"
	@echo "make results measure the results table anew: a day on two cores, resumable"
	@echo "make gallery make the gallery's runs anew: an hour on two cores, resumable"
	@echo "make clean   remove .venv and caches (runs are kept)"

setup: $(STAMP)

# The stamp is younger than pyproject.toml once everything is installed, so that nothing is done twice.
$(STAMP): pyproject.toml
	@command -v $(PYTHON) >/dev/null || \
	  { echo "Limbeck needs Python 3.11 or newer, and there is no $(PYTHON) here. Install it, or name one: make setup PYTHON=python3.12"; exit 2; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "Limbeck needs Python 3.11 or newer, and $(PYTHON) is $$($(PYTHON) -V 2>&1). Name a newer one: make setup PYTHON=python3.12"; exit 2; }
	@$(PYTHON) -c 'import venv, ensurepip' 2>/dev/null || \
	  { echo "This Python cannot make virtual environments (ensurepip is missing). On Debian or Ubuntu: apt-get install python3-venv"; exit 2; }
	@test -x $(BIN)/python || $(PYTHON) -m venv .venv
	@echo "Installing Limbeck's dependencies into .venv; the first time takes some minutes."
	@PYTHONWARNINGS=ignore $(BIN)/python -m pip install --quiet --disable-pip-version-check --no-input -e '.[test,cluster]'
	@touch $@

run: setup
	@$(BIN)/python -m streamlit run app.py

seminar: setup
	@$(BIN)/python -m engine seminar --address $(ADDRESS) --port $(PORT)

lint: setup
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .

types: setup
	@$(BIN)/mypy

# Names under which a chromium may be installed; the same list is in tests/browser/conftest.py.
CHROMIUM = command -v chromium || command -v chromium-browser || command -v google-chrome
APT := apt-get update -qq && apt-get install -y -qq --no-install-recommends chromium fonts-dejavu-core

chromium:
	@if ( $(CHROMIUM) ) >/dev/null; then exit 0; \
	elif ! command -v apt-get >/dev/null; then \
	  echo "No chromium here, so the browser tests will be skipped: install Chromium or Chrome to run them."; \
	elif [ "$$(id -u)" = 0 ]; then echo "Installing chromium for the browser tests."; \
	  ( export DEBIAN_FRONTEND=noninteractive; $(APT) ) >/dev/null </dev/null || echo "chromium could not be installed."; \
	elif sudo -n true 2>/dev/null; then echo "Installing chromium for the browser tests."; \
	  sudo -n DEBIAN_FRONTEND=noninteractive sh -c '$(APT)' >/dev/null </dev/null || echo "chromium could not be installed."; \
	else \
	  echo "No chromium here, so the browser tests will be skipped. To run them: sudo apt-get install chromium"; \
	fi

# All but the browser's tests, which share one server, run beside each other: a process a core, of one thread and up to
# 3 GB each. A choice of tests in PYTEST_FLAGS may leave one half without any (5); where the browser's must run, not theirs.
PARALLEL := -n auto --maxprocesses 4
test: lint types chromium
	@rest=0; OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m "not browser" $(PARALLEL) $(PYTEST_FLAGS) || rest=$$?; \
	browser=0; $(BIN)/python -m pytest -m browser $(PYTEST_FLAGS) || browser=$$?; \
	case $$rest,$$browser$${LIMBECK_REQUIRE_BROWSER:+,required} in 0,0*|5,0*|0,5) ;; *) exit 1;; esac

# A target of its own, because counting lines slows the tests down; sys.monitoring (Python 3.12) does so least.
coverage: setup chromium
	@COVERAGE_CORE=$$($(BIN)/python -c 'import sys; print("sysmon" if sys.version_info >= (3, 12) else "ctrace")') \
	  $(BIN)/coverage run -m pytest $(PYTEST_FLAGS)
	@$(BIN)/coverage report

mutants: setup
	@$(BIN)/python tests/mutants.py

results: setup
	@$(BIN)/python tests/benchmarks/results.py

gallery: setup
	@$(BIN)/python tests/benchmarks/gallery.py

clean:
	rm -rf .venv .coverage .mypy_cache .pytest_cache .ruff_cache limbeck.egg-info
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
