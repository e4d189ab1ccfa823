# Everything sets up .venv by itself the first time; `make demo` and `make test` are all that a newcomer types.
PYTHON ?= python3
BIN := .venv/bin
INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt

.PHONY: demo test test-slow bench lint clean

demo: .venv/.base
	$(BIN)/jaxvos demo --out demo-out --overwrite

test: .venv/.test
	$(BIN)/python -m pytest -n 2 -m "not slow and not gpu"

test-slow: .venv/.test
	$(BIN)/python -m pytest -m "slow"

bench: .venv/.test
	$(BIN)/python experiments/benchmarks/factorized.py
	$(BIN)/python experiments/benchmarks/solvers.py
	$(BIN)/python experiments/benchmarks/evaluation.py
	$(BIN)/python experiments/benchmarks/dmm_net.py
	$(BIN)/python experiments/benchmarks/memory.py
	$(BIN)/python experiments/benchmarks/propagation.py
	$(BIN)/python experiments/benchmarks/training.py

lint: .venv/.dev
	$(BIN)/ruff check . && $(BIN)/pyright

.venv/.python:
	$(PYTHON) -m venv .venv
	touch $@

.venv/.base: .venv/.python pyproject.toml constraints.txt
	$(INSTALL) --editable .
	touch $@

.venv/.test: .venv/.base
	$(INSTALL) --editable ".[test]"
	touch $@

.venv/.dev: .venv/.test
	$(INSTALL) --editable ".[test,dev]"
	touch $@

clean:
	rm -rf .venv build demo-out *.egg-info
