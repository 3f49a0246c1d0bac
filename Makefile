# make demo: a planet, a trained emulator, its forecasts, their scores.   make test: the whole test suite.

PYTHON ?= python3
BIN := .venv/bin
STAMP := .venv/.installed
EXPERIMENT ?= planet_sfno
FLOORS ?= tests/units/data_pipelines tests/units/emulators tests/units/cli/config tests/contracts/test_configs.py
FLOORS_PYTHON ?= $(BIN)/python

.PHONY: install demo test test-fast floors parity audit lint format clean

install: $(STAMP)

$(BIN)/python:
	$(PYTHON) -m venv .venv

$(STAMP): pyproject.toml constraints.txt | $(BIN)/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	touch $@

demo: install
	$(BIN)/emul train experiment=$(EXPERIMENT)
	$(BIN)/emul forecast run=outputs/train/$(EXPERIMENT)
	$(BIN)/emul eval run=outputs/train/$(EXPERIMENT)

# Two processes of one thread each: the tests are many and small.
test: install
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2

test-fast: install
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 -m "not slow"

# The oldest versions that pyproject.toml declares, in an environment of their own: what needs no long run.
floors: | $(BIN)/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check uv
	$(BIN)/uv venv --quiet --allow-existing --python $(FLOORS_PYTHON) .venv-floors
	$(BIN)/uv pip install --quiet --python .venv-floors/bin/python --resolution lowest-direct -e '.[dev]'
	OMP_NUM_THREADS=1 .venv-floors/bin/python -m pytest -p no:cacheprovider -n 2 -m "not slow" $(FLOORS)

# Peers whose numbers ours are compared with, in an environment of their own; those that cannot be installed are named.
# Each file has a process of its own: some peers replace modules of others where they are imported.
parity: | $(BIN)/python
	$(PYTHON) -m venv .venv-parity
	.venv-parity/bin/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]' setuptools wheel
	while read -r peer; do .venv-parity/bin/python -m pip install --quiet --disable-pip-version-check \
	  -c constraints.txt --no-build-isolation "$$peer" || echo "$$peer could not be installed; its tests are skipped."; \
	  done < tests/parity/peers.txt
	for file in tests/parity/test_*.py tests/units/emulators/scores/test_ensemble.py; do \
	  OMP_NUM_THREADS=1 .venv-parity/bin/python -m pytest -p no:cacheprovider -rs $$file || failed=1; done; test -z "$$failed"

# Known vulnerabilities of the versions in use; where their data base cannot be reached, that is said.
audit: install
	$(BIN)/python -m pip install --quiet --disable-pip-version-check pip-audit
	$(BIN)/pip-audit --progress-spinner off --skip-editable

lint: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: install
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:
	rm -rf .venv .venv-floors .venv-parity build *.egg-info .pytest_cache .mypy_cache .ruff_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
