# `make demo` and `make test` do all the set-up; both are quick the second time.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
LOCK := .ci/requirements.txt
TEST_LOCK := .ci/requirements-test.txt
BUILT_WITH := setuptools>=77
COMPILE = $(BIN)/uv --no-config pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-annotate \
	--custom-compile-command 'make lock' $(UPGRADE)
SOURCES := .ci errata.py ingest analysis dashboard tests benchmarks
OIDC := tests/dashboard/oidc
GATEWAYS := nginx libnginx-mod-http-js libnginx-mod-http-lua haproxy apache2-bin caddy
# What rotates logs, and what compiles the faults of the crash tests.
TOOLS := logrotate gcc libc6-dev

.PHONY: all demo test check format docs lock audit browser gateways oidc clean
all: $(VENV)/.installed

$(VENV)/bin/python:
	$(PYTHON) -m venv $(VENV)

# Wheels alone: what builds a source distribution would be fetched without a hash.
INSTALL = $(BIN)/pip install --quiet --require-hashes --only-binary :all: --requirement
INSTALL_ERRATA = PYTHONWARNINGS=ignore $(BIN)/pip install --quiet --no-deps --no-build-isolation --editable . && $(BIN)/pip check --quiet || \
	{ $(BIN)/pip check; echo "expected all that pyproject.toml asks for in $(LOCK); run: make lock" >&2; exit 2; }

$(VENV)/.installed: pyproject.toml $(LOCK) | $(VENV)/bin/python
	$(INSTALL) $(LOCK)
	$(INSTALL_ERRATA)
	touch $@

$(VENV)/.installed-test: pyproject.toml $(TEST_LOCK) | $(VENV)/bin/python
	$(INSTALL) $(TEST_LOCK)
	$(INSTALL_ERRATA)
	touch $(VENV)/.installed $@

demo: $(VENV)/.installed
	$(BIN)/errata demo

# The dashboard's tests drive Debian's Chromium.
browser:
	@command -v chromium >/dev/null || { apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq chromium; }

# Tests start gateways in front of a small API, and use the tools; without them such tests are skipped.
gateways:
	@dpkg --status $(GATEWAYS) $(TOOLS) >/dev/null 2>&1 || { apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq $(GATEWAYS) $(TOOLS); }

# The tests of signing in start an identity provider; without it they are skipped.
oidc: $(OIDC)/node_modules/.package-lock.json

$(OIDC)/node_modules/.package-lock.json: $(OIDC)/package-lock.json
	@command -v npm >/dev/null || { apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends nodejs npm; }
	npm ci --prefix $(OIDC) --ignore-scripts --no-audit --no-fund --silent
	touch $@

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

# A new dependency: name it in pyproject.toml, say why on its line, then `make lock`. Newer versions: `make lock UPGRADE=--upgrade`.
lock: | $(BIN)/uv
	echo '$(BUILT_WITH)' | $(COMPILE) --output-file $(LOCK) pyproject.toml -
	echo '$(BUILT_WITH)' | $(COMPILE) --output-file $(TEST_LOCK) --extra test --constraint $(LOCK) pyproject.toml -

$(BIN)/uv: | $(VENV)/bin/python
	$(INSTALL) $(TEST_LOCK)

# Asks for advisories over the network, and one that is new must not break an unrelated change: no part of `make check`.
audit: $(VENV)/.installed-test oidc
	$(BIN)/pip check
	status=0; $(BIN)/python .ci/audit.py $(LOCK) $(TEST_LOCK) || status=$$?; \
	npm audit --prefix $(OIDC) --package-lock-only || status=1; exit $$status

clean:
	rm -rf $(VENV) build *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis
