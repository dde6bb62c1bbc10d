# Two commands: `make demo` and `make test`. Each makes its own environment first.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin

.PHONY: demo test bench faults clean

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

bench: $(VENV)/.installed
	$(BIN)/veilset bench spine --jobs 2

faults: $(VENV)/.installed
	OMP_NUM_THREADS=1 $(BIN)/python tests/faults/run.py

clean:
	rm -rf $(VENV) demo build dist
