# make demo: a planet, a trained emulator, its forecasts, their scores.   make test: the whole test suite.

PYTHON ?= python3
BIN := .venv/bin
STAMP := .venv/.installed
DOCS_STAMP := .venv/.installed-docs
FLOORS_STAMP := .venv-floors/.installed
EXPERIMENT ?= planet_sfno
FLOORS ?= tests/units/data_pipelines tests/units/emulators tests/units/cli/config tests/contracts/test_configs.py
FLOORS_PYTHON ?= $(BIN)/python
FORMS ?= *
PYTHONS ?= 3.12 3.13 3.14

.PHONY: install demo docs test test-fast floors pythons parity audit lint format clean

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

# The site in docs/_build/html, from the pages in docs/ and from the package itself; every warning is an error. What it
# needs is installed once; then it is built without a network.
docs: $(DOCS_STAMP)
	$(BIN)/python -m sphinx -E -W --keep-going -q -b html docs docs/_build/html
	PYTHONPATH=docs $(BIN)/python -m building.links docs/_build/html

$(DOCS_STAMP): pyproject.toml constraints.txt $(STAMP)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[docs]'
	touch $@

# Two processes of one thread each: the tests are many and small. MINUTES=N: slow tests come last, and those that have not
# begun after so many minutes are skipped and counted.
test: install
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 $(if $(MINUTES),--minutes $(MINUTES))

test-fast: install
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 -m "not slow"

# The oldest versions that pyproject.toml declares, in an environment of their own: what needs no long run.
floors: $(FLOORS_STAMP)
	OMP_NUM_THREADS=1 .venv-floors/bin/python -m pytest -p no:cacheprovider -n 2 -m "not slow" $(FLOORS)

$(FLOORS_STAMP): pyproject.toml | $(BIN)/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check uv
	$(BIN)/uv venv --quiet --allow-existing --python $(FLOORS_PYTHON) .venv-floors
	$(BIN)/uv pip install --quiet --python .venv-floors/bin/python --resolution lowest-direct -e '.[dev]'
	touch $@

# Newer versions of Python, each in an environment of its own, as far as this machine has them: what needs no long run.
pythons:
	for version in $(PYTHONS); do \
	  python=$$(ls $${PYENV_ROOT:-$$HOME/.pyenv}/versions/$$version.*/bin/python 2>/dev/null | tail -1); \
	  python=$${python:-python$$version}; \
	  $$python -c "" 2>/dev/null || { echo "Python $$version is not on this machine; it is not tested."; continue; }; \
	  $$python -m venv .venv-$$version && .venv-$$version/bin/python -m pip install --quiet --disable-pip-version-check \
	    -c constraints.txt -e '.[dev]' || { echo "Packages for Python $$version could not be installed; it is not tested."; continue; }; \
	  OMP_NUM_THREADS=1 .venv-$$version/bin/python -m pytest -p no:cacheprovider -n 2 -m "not slow" $(FLOORS) || failed=1; \
	done; test -z "$$failed"

# Peers whose numbers ours are compared with, in an environment of their own that sees the packages of .venv; those that
# cannot be installed are named. FORMS=wheel: only peers that need no building, in a minute or two.
# Each file has a process of its own: some peers replace modules of others where they are imported. Exit 5: all skipped.
parity: install
	$(BIN)/python -m venv .venv-parity
	echo "import site; site.addsitedir('$$(realpath .venv/lib/python*/site-packages)')" \
	  > $$(realpath .venv-parity/lib/python*/site-packages)/tested.pth
	.venv-parity/bin/python -m pip install --quiet --disable-pip-version-check setuptools wheel
	while read -r form peer; do case "$$form" in $(FORMS)) .venv-parity/bin/python -m pip install --quiet \
	  --disable-pip-version-check -c constraints.txt --no-build-isolation "$$peer" \
	  || echo "$$peer could not be installed; its tests are skipped.";; esac; done < tests/parity/peers.txt
	for file in tests/parity/test_*.py tests/units/emulators/scores/test_ensemble.py \
	  tests/units/emulators/scores/test_neighbourhoods.py; do \
	  OMP_NUM_THREADS=1 .venv-parity/bin/python -m pytest -p no:cacheprovider -rs $$file || [ $$? = 5 ] || failed=1; done; test -z "$$failed"

# Known vulnerabilities of the versions in use; where the index in use has no data on them, that is said.
audit: install
	$(BIN)/python -m pip install --quiet --disable-pip-version-check pip-audit
	$(BIN)/pip-audit --progress-spinner off --skip-editable > .venv/audit.txt 2>&1; code=$$?; cat .venv/audit.txt; \
	  grep -q "could not be audited" .venv/audit.txt && echo "NOT AUDITED: the packages of which that is said above."; exit $$code

lint: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: install
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:
	rm -rf .venv .venv-* build docs/_build docs/reference docs/tutorials/*.ipynb *.egg-info .pytest_cache .mypy_cache .ruff_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
