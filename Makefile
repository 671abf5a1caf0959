# `make demo` and `make test` do all the set-up; both are quick the second time.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
CONSTRAINTS := .ci/constraints.txt
SOURCES := errata.py ingest analysis dashboard tests benchmarks
GATEWAYS := nginx libnginx-mod-http-js libnginx-mod-http-lua haproxy apache2-bin caddy

.PHONY: all demo test check format docs browser gateways clean
all: $(VENV)/.installed

$(VENV)/bin/python:
	$(PYTHON) -m venv $(VENV)

$(VENV)/.installed: pyproject.toml $(CONSTRAINTS) | $(VENV)/bin/python
	$(BIN)/pip install --quiet --constraint $(CONSTRAINTS) --editable .
	touch $@

$(VENV)/.installed-test: pyproject.toml $(CONSTRAINTS) | $(VENV)/bin/python
	$(BIN)/pip install --quiet --constraint $(CONSTRAINTS) --editable '.[test]'
	touch $(VENV)/.installed $@

demo: $(VENV)/.installed
	$(BIN)/errata demo

# The dashboard's tests drive Debian's Chromium.
browser:
	@command -v chromium >/dev/null || { apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq chromium; }

# Tests start these in front of a small API; without them those tests are skipped.
gateways:
	@dpkg --status $(GATEWAYS) >/dev/null 2>&1 || { apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq $(GATEWAYS); }

test: $(VENV)/.installed-test browser check

check: $(VENV)/.installed-test
	$(BIN)/ruff format --check --quiet $(SOURCES)
	$(BIN)/ruff check --quiet $(SOURCES)
	$(BIN)/mypy
	$(BIN)/python -m docs --check
	$(BIN)/pytest

format: $(VENV)/.installed-test
	$(BIN)/ruff format $(SOURCES)
	$(BIN)/ruff check --fix $(SOURCES)

docs: $(VENV)/.installed-test
	$(BIN)/python -m docs

clean:
	rm -rf $(VENV) build *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis
