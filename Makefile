# make demo: a planet, a trained emulator, its forecasts, their scores.   make test: the whole test suite.

PYTHON ?= python3
BIN := .venv/bin
STAMP := .venv/.installed
EXPERIMENT ?= planet_sfno

.PHONY: install demo test test-fast lint format clean

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

lint: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: install
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:
	rm -rf .venv build *.egg-info .pytest_cache .mypy_cache .ruff_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
