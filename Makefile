# Two commands: `make demo` and `make test`; `make test-long` runs the tests that `make test` leaves out, `make site`
# builds the documentation. Each makes its own environment first.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin

# Of the long tests, I/N: the I-th of N parts.
PART ?= 1/1

# Compiled modules are kept: each of some hundred processes that the tests start would compile them again.
export PYTHONDONTWRITEBYTECODE :=

.PHONY: demo test test-long bench tables faults site notebooks clean

$(VENV)/.installed: pyproject.toml constraints.txt setup.py src/veilset/privacy/gradients/kernels.cpp
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check torch==2.13.0 -e '.[dev,parquet]' -c constraints.txt
	touch $@

demo: $(VENV)/.installed
	PATH="$(abspath $(BIN)):$$PATH" bash demo.sh

test: $(VENV)/.installed
	$(BIN)/ruff check src tests benchmarks docs
	$(BIN)/ruff format --check src tests benchmarks docs
	$(BIN)/mypy
	$(BIN)/lint-imports
	OMP_NUM_THREADS=1 $(BIN)/pytest -n 2

test-long: $(VENV)/.installed
	OMP_NUM_THREADS=1 $(BIN)/pytest -n 2 -m long --part $(PART)

bench: $(VENV)/.installed
	$(BIN)/veilset bench spine --jobs 2

tables: $(VENV)/.installed  # from the results that are there; marks those that other code made
	for name in $$($(BIN)/python -c "from benchmarks.runner.suite import SUITES; print(*SUITES)"); do \
	  $(BIN)/veilset bench $$name --dry > /dev/null || exit 1; done

faults: $(VENV)/.installed
	OMP_NUM_THREADS=1 $(BIN)/python tests/faults/run.py

$(VENV)/.docs: $(VENV)/.installed
	$(BIN)/pip install --quiet --disable-pip-version-check torch==2.13.0 -e '.[docs]' -c constraints.txt
	touch $@

site: $(VENV)/.docs
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet
	$(BIN)/pytest tests/docs/test_site.py

notebooks: $(VENV)/.docs
	OMP_NUM_THREADS=1 $(BIN)/python docs/make_notebooks.py

clean:
	rm -rf $(VENV) demo build dist
