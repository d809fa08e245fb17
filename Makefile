# `make demo` and `make test` set up all they need, in .venv, on a fresh machine.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin

# pip says what it downloads; of pip itself a newer one is not asked for
PIP := $(BIN)/python -m pip install --disable-pip-version-check

.PHONY: demo test test-faults lint types docs bench wheel clean

demo: $(VENV)/.installed
	$(BIN)/pcmci demo

# How many processes: tests/conftest.py. Compiled tests are kept, whatever the shell says: each of
# the processes would compile them again.
test: $(VENV)/.installed-test
	PYTHONDONTWRITEBYTECODE= $(BIN)/python -m pytest -n auto --dist worksteal

# every fault by the hundred, with a table at the end; half an hour at most
test-faults: $(VENV)/.installed-test
	timeout 30m $(BIN)/python -m pytest tests/faults -m long

lint: $(VENV)/.installed-test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(VENV)/.installed-test
	$(BIN)/mypy

# the site, to build/site; docstrings are read, nothing is imported. From the disk it has no search:
# python -m http.server -d build/site
docs: $(VENV)/.installed-docs
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --quiet --strict

# every claim about speed, measured: bench/performance.md; half an hour, with nothing else running
bench: $(VENV)/.installed-bench
	$(BIN)/python benchmarks/all.py

# the wheel alone, in an empty environment, to the demo's page; packages are borrowed from $(VENV)
wheel: $(VENV)/.installed
	$(BIN)/python .ci/wheel.py

clean:
	rm -rf $(VENV) build *.egg-info .pytest_cache .mypy_cache .ruff_cache

# what the package needs and no more; --prefer-binary: nothing is compiled where a wheel can be had
$(VENV)/.installed: pyproject.toml
	$(PYTHON) -m venv $(VENV)
	@echo 'pcmci: installing what it needs into $(VENV), some minutes and gigabytes the first time'
	$(PIP) --prefer-binary -e .
	touch $@

$(VENV)/.installed-test: $(VENV)/.installed
	$(PIP) --quiet -e '.[test]'
	touch $@

$(VENV)/.installed-docs: $(VENV)/.installed
	$(PIP) --quiet -e '.[docs]'
	touch $@

$(VENV)/.installed-bench: $(VENV)/.installed-test
	$(PIP) --quiet -e '.[bench]'
	touch $@
