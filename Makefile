# Two commands do everything on a fresh machine with Python 3.11 or later:
#   make demo   shows the main job on real input
#   make test   passes the tests

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

.PHONY: demo test soak overload faults scale conformance bench memory format clean

$(STAMP): pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --upgrade "pip>=25.1"
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable . --group dev
	touch $@

demo: $(STAMP)
	$(BIN)/python scripts/demo.py

test: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/pytest -n auto --dist worksteal --cov --cov-report=term:skip-covered

# Half an hour of mixed load on `guard serve`: is memory flat, and every answer right?
soak: $(STAMP)
	$(BIN)/python scripts/soak.py --seconds 1800

# Five minutes at twice what Guard can do: is it honest about the rest, and is nothing lost?
overload: $(STAMP)
	$(BIN)/python scripts/overload.py --seconds 300

# Kill -9, full disks, torn pages, cut networks, wrong clocks, on both stores: is anything lost? Needs PostgreSQL.
faults: $(STAMP)
	GUARD_TEST_POSTGRES=needed $(BIN)/python scripts/faults.py $(ARGS)

# A million entries: do appending, finding, proving and memory stay flat? ARGS="--postgres URL": in PostgreSQL too.
scale: $(STAMP)
	$(BIN)/python scripts/scale.py $(ARGS)

# The protocol's own conformance suite, at a tool server and again through Guard: what is lost? Needs npm.
conformance: $(STAMP)
	$(BIN)/python scripts/conformance.py

# What Guard costs, beside a direct connection and a proxy that only forwards. More: make bench ARGS=--help
bench: $(STAMP)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --group bench
	$(BIN)/python scripts/bench.py $(ARGS)

# A million calls over ten thousand conversations: is memory flat? And how long does a long list take?
memory: $(STAMP)
	$(BIN)/python scripts/memory.py $(ARGS)

format: $(STAMP)
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

clean:
	rm -rf $(VENV) build .pytest_cache .mypy_cache .ruff_cache .hypothesis .coverage*
