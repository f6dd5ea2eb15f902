# `make demo` and `make test` need only Python 3.11 or later and make: the rest is set up here.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALL := $(BIN)/uv pip install --quiet --compile-bytecode --python $(BIN)/python --constraints constraints.txt

.PHONY: demo test check format clean

demo: $(VENV)/.installed  ## train, attack, explain and report on the phantom
	$(BIN)/diascope demo --out demo

test: $(VENV)/.installed-dev  ## the whole test suite
	OMP_NUM_THREADS=1 $(BIN)/pytest -n 2 --dist worksteal

check: $(VENV)/.installed-dev  ## format, lint, types
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

format: $(VENV)/.installed-dev
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

clean:
	rm -rf $(VENV) demo .mypy_cache .ruff_cache .hypothesis

$(BIN)/uv:
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Diascope needs Python 3.11 or later; set PYTHON=")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt uv

$(VENV)/.installed: $(BIN)/uv pyproject.toml constraints.txt
	$(INSTALL) --editable .
	touch $@

# torchattacks pins the requests of 2021 for a download that is never made here: hence --no-deps.
$(VENV)/.installed-dev: $(VENV)/.installed
	$(INSTALL) --group test --group check --group peers
	$(INSTALL) --no-deps torchattacks
	touch $@
