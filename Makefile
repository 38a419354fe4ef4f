# make demo: simulated scenes -> data set -> training -> evaluation -> leaderboard page
# make test: the tests.  Both install into .venv on first use; VENV=PATH uses a ready environment instead.

VENV ?= .venv
PYTHON ?= python3
BIN := $(VENV)/bin
DEMO ?= demo
STAMP := $(VENV)/.tidemark-installed
PIP := $(BIN)/python -m pip install --disable-pip-version-check -c constraints.txt

.DEFAULT_GOAL := help
.PHONY: help install demo test test-slow lint bench clean

help:
	@sed -n 's/^# //p' Makefile
	@echo "also: install, test-slow, lint, bench, clean"

ifeq ($(VENV),.venv)
install: $(STAMP)
$(STAMP): setup.cfg constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(PIP) torch
	$(PIP) setuptools wheel
	$(PIP) --no-build-isolation -e ".[test]"
	touch $@
else
install:
	$(BIN)/python -c "import tidemark" 2>/dev/null || \
		{ $(PIP) setuptools wheel && $(PIP) --no-build-isolation --no-deps -e .; }
endif

demo: install
	sh configs/demo/run.sh $(BIN)/tidemark $(DEMO)

## One process per core, each with one thread; files stay whole, so that what they share is made once.
PYTEST := OMP_NUM_THREADS=1 $(BIN)/pytest -q -n auto --maxprocesses 4 --dist loadfile

test: install
	$(PYTEST) -m "not slow"

test-slow: install
	$(PYTEST) -m slow

lint: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

bench: install
	$(BIN)/pytest -q -c benchmark/perf/pytest.ini benchmark/perf
	$(BIN)/tidemark bench loader
	for figure in model end-to-end scene; do $(BIN)/tidemark bench $$figure unet || exit 1; done

clean:
	rm -rf $(DEMO) build *.egg-info .pytest_cache .ruff_cache .hypothesis
