# Two commands for a newcomer, `make demo` and `make test`; `make help` lists the rest.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PYTEST := $(BIN)/python -m pytest -n 2 --dist loadfile
CONSTRAINTS := constraints.txt
CACHED := JAX_COMPILATION_CACHE_DIR=.pytest_cache/jax JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS=0

.PHONY: help demo test test-all multihost-test faults soak ledger notebooks docs docs-lessons lint types format check bench bench-gpu record lock clean
help: ## list the commands
	@grep -E '^[a-z-]+:.*##' Makefile | sed -E 's/^([a-z-]+):.*## /\1|/' | column -t -s '|'

demo: $(VENV)/run ## discrete runs, SVAG and the SDE on digits, under three minutes
	$(BIN)/python -m experiments.svag --config=configs/svag.py:digits

test: $(VENV)/dev ## what a change can break, twelve minutes on two cores at first, fewer then
	$(PYTEST)
	$(PYTEST) tests/devices
	$(CACHED) $(BIN)/python -m doctest README.md docs/optimizers.md

test-all: test ## and the theory at full path counts, commands, hosts, notebooks
	$(PYTEST) -m full
	$(PYTEST) -m full tests/devices

multihost-test: $(VENV)/dev ## two processes on this machine against one, some minutes
	$(PYTEST) -m "full or not full" tests/hosts

faults: $(VENV)/dev ## malformed input, damaged runs, and kills of every study, half an hour
	EXPLORE=1 $(PYTEST) -m "full or not full" tests/faults
	$(BIN)/python -m tests.faults.report
	PYTHONPATH=. $(BIN)/python tests/faults/directories.py
	PYTHONPATH=. $(CACHED) $(BIN)/python tests/faults/kills.py --kills=3

soak: $(VENV)/dev ## memory and open files of a long run; MINUTES=60
	$(BIN)/python -m tests.faults.soak $(or $(MINUTES),60)

notebooks: $(VENV)/dev ## run the lessons, and check their answers
	$(PYTEST) -m full tests/process/test_notebooks.py

docs: $(VENV)/dev ## the site, in build/site; broken links are errors
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict

docs-lessons: $(VENV)/dev ## the same with the lessons run, some minutes
	LESSONS=true NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict

ledger: $(VENV)/dev ## the small form of every command in docs/claims.md
	LEDGER=all $(PYTEST) -m full tests/process/test_claims_in_small.py

lint: $(VENV)/dev ## style
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(VENV)/dev ## type checker
	$(BIN)/pyrefly check

format: $(VENV)/dev ## put the code in its form
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

check: lint types test ## what to run before a commit

bench: $(VENV)/bench ## speed against peers, about fifteen minutes on idle cores
	$(BIN)/python -m benchmarks

bench-gpu: $(VENV)/bench ## the same on a GPU or TPU, with ResNets against torch
	$(BIN)/python -m benchmarks.accelerator

record: $(VENV)/run ## every preset in small, into runs/record; compare before and after
	$(BIN)/python -m benchmarks.record runs/record

lock: $(VENV)/dev ## renew constraints.txt from pyproject.toml
	$(BIN)/pip install -q uv
	$(BIN)/uv pip compile pyproject.toml --extra dev --universal --python-version 3.11 \
	  --no-emit-index-url --no-header --no-annotate --quiet --upgrade -o $(CONSTRAINTS)

clean: ## remove what can be made again
	rm -rf $(VENV) build dist *.egg-info .pytest_cache .ruff_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# One stamp for each set of packages; `dev` and `bench` include `run`.
$(VENV)/run: pyproject.toml $(CONSTRAINTS)
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check -c $(CONSTRAINTS) -e .[studies]
	@touch $@

$(VENV)/dev: $(VENV)/run
	$(BIN)/pip install --quiet --disable-pip-version-check -c $(CONSTRAINTS) -e .[dev]
	@touch $@

$(VENV)/bench: $(VENV)/run
	$(BIN)/pip install --quiet --disable-pip-version-check -c $(CONSTRAINTS) -e .[bench]
	@touch $@
