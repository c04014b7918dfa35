# make reproduce: set up and run the main job.   make test: set up and pass the tests.   make lint: style, types, layers.
# make ablations: nine questions, SEEDS seeds each.

PYTHON ?= python3
VENV ?= .venv
PARITY_VENV ?= .venv-parity
BIN := $(VENV)/bin
CONFIG ?= configs/shop.py
WORKDIR ?= runs/shop

SEEDS ?= 3

.PHONY: setup reproduce ablations test lint gym parity clean

setup: $(VENV)/runtime

$(VENV)/runtime: requirements.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "rljax needs Python 3.11 or newer, $(PYTHON) is older: make PYTHON=python3.12 ..."; exit 1; }
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements.txt
	@touch $@

$(VENV)/tests: requirements-dev.txt $(VENV)/runtime
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements-dev.txt
	@touch $@

reproduce: setup
	$(BIN)/python -m experiments.reproduce --config $(CONFIG) --workdir $(WORKDIR)

# the questions of configs/ablations/, one after the other, with starts that they share
ablations: setup
	@for question in $(filter-out small __init__,$(basename $(notdir $(wildcard configs/ablations/*.py)))); do \
		$(BIN)/python -m experiments.ablate --config configs/ablations/$$question.py --workdir runs/ablations/$$question \
			--starts runs/ablations/starts --seeds $(SEEDS) || exit 1; \
	done

test: $(VENV)/tests
	$(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder

lint: $(VENV)/tests
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports
	$(BIN)/basedpyright

# reasoning-gym, an extra: install it and check the allowed tasks live
gym: $(VENV)/tests
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements-gym.txt
	$(BIN)/python -m pytest tests/test_gym.py

# every model family against torch and transformers, live; they have an environment of their own
parity: $(PARITY_VENV)/ready
	$(PARITY_VENV)/bin/python -m tests.parity.write_fixtures --check
	$(PARITY_VENV)/bin/python -m pytest -n 2 tests/parity/live.py tests/parity/live_text.py

$(PARITY_VENV)/ready: requirements.txt requirements-dev.txt requirements-parity.txt
	@test -x $(PARITY_VENV)/bin/python || $(PYTHON) -m venv $(PARITY_VENV)
	$(PARITY_VENV)/bin/python -m pip install --quiet --disable-pip-version-check -r requirements.txt -r requirements-dev.txt
	$(PARITY_VENV)/bin/python -m pip install --quiet --disable-pip-version-check --retries 1 -r requirements-parity.txt
	@touch $@

clean:
	rm -rf $(VENV) $(PARITY_VENV) .pytest_cache .ruff_cache
