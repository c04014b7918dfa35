# `make help` lists the targets. Variables: PYTHON, VENV, CONFIG, WORKDIR, SEEDS, for example
# `make reproduce CONFIG=configs/fruit.py WORKDIR=runs/fruit`.

PYTHON ?= python3
VENV ?= .venv
PARITY_VENV ?= .venv-parity
NEWEST_VENV ?= .venv-newest
CLIENTS_VENV ?= .venv-clients
PEER_VENVS := .venv-tunix .venv-trl
# a Python that pyenv lists but does not start is passed over
NEWEST_PYTHON ?= $(shell for p in python3.13 python3.12 $(PYTHON); do $$p -c '' 2>/dev/null && { echo $$p; break; }; done)
BIN := $(VENV)/bin
# pip would compile the sources of all packages to bytecode, most of which no run imports: half of its time
PIP_INSTALL := -m pip install --quiet --disable-pip-version-check --no-compile
CONFIG ?= configs/shop.py
WORKDIR ?= runs/shop
SEEDS ?= 3

# quick files of every part of the library; what is slow in them is marked so
FAST := $(addprefix tests/test_,$(addsuffix .py, \
	launch workdir commands packaging configs options plugins call_path advantages algorithms surrogates behaviours metrics answers \
	equal_answers templates chat text countdown shop_and_fruit data checksums figures))

.DEFAULT_GOAL := help
.PHONY: help setup playground playground-test test test-fast test-all test-exhaustive reproduce ablations lint format newest gym parity real docs notebook bench peers clean

help:  ## list the targets
	@grep -E '^[a-z-]+:.*## ' $(firstword $(MAKEFILE_LIST)) | sed -E 's/^([a-z-]+):.*## /\1\t/' | \
		awk -F '\t' '{printf "make %-15s %s\n", $$1, $$2}'

setup: $(VENV)/runtime  ## make .venv with the pinned libraries and the command rljax

$(VENV)/runtime: requirements.txt pyproject.toml setup.py
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "rljax needs Python 3.11 or newer, $(PYTHON) is older: make PYTHON=python3.12 ..."; exit 1; }
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python $(PIP_INSTALL) -r requirements.txt
	$(BIN)/python $(PIP_INSTALL) --no-deps -e .
	@env -u PYTHONDONTWRITEBYTECODE $(BIN)/python -c 'import experiments.reproduce'
	@touch $@

$(VENV)/tests: requirements-dev.txt $(VENV)/runtime
	$(BIN)/python $(PIP_INSTALL) -r requirements-dev.txt
	@touch $@

PYTEST := -m pytest -n 2 --dist loadfile --no-loadscope-reorder

test: $(VENV)/tests  ## set up and pass the tests
	$(BIN)/python $(PYTEST) -m "not exhaustive"

test-exhaustive: $(VENV)/tests  ## what `make test` leaves out: more cases, sizes and kills
	$(BIN)/python $(PYTEST) -m exhaustive

test-all: $(VENV)/tests  ## both
	$(BIN)/python $(PYTEST)

test-fast: $(VENV)/tests  ## the quick tests of every part, two minutes at most
	$(BIN)/python -m pytest -n 2 --dist loadfile -m "not slow and not exhaustive" $(FAST)

reproduce: setup  ## the main job: pretraining, SFT, RL and a report, from CONFIG in WORKDIR
	$(BIN)/python -m experiments.reproduce --config $(CONFIG) --workdir $(WORKDIR)

playground: setup  ## a page to ask the policy in WORKDIR; it is trained first, from CONFIG, where there is none
	$(BIN)/python -m experiments.playground --train $(CONFIG) --workdir $(WORKDIR)

# in an environment of their own; Chromium is Debian's, or the one that CHROMIUM names
playground-test: $(VENV)/tests $(CLIENTS_VENV)/ready  ## the playground's page in a real Chromium, and the openai package as a client
	PLAYGROUND_PYTHON=$(BIN)/python $(CLIENTS_VENV)/bin/python -m pytest -q -p no:cacheprovider --confcutdir tests/clients \
		tests/clients/browser.py tests/clients/openai_client.py

$(CLIENTS_VENV)/ready: requirements-clients.txt
	@test -x $(CLIENTS_VENV)/bin/python || $(PYTHON) -m venv $(CLIENTS_VENV)
	$(CLIENTS_VENV)/bin/python $(PIP_INSTALL) -r requirements-clients.txt
	@touch $@

# one after the other, with starts that they share
ablations: setup  ## every question of configs/ablations/, SEEDS seeds each
	@for question in $(filter-out small __init__,$(basename $(notdir $(wildcard configs/ablations/*.py)))); do \
		$(BIN)/python -m experiments.ablate --config configs/ablations/$$question.py --workdir runs/ablations/$$question \
			--starts runs/ablations/starts --seeds $(SEEDS) || exit 1; \
	done

# every tool runs, also after one has failed
lint: $(VENV)/tests  ## style, wall clocks in tests, import layers, types
	@failed=; for tool in "ruff check ." "ruff format --check ." "lint-imports" "basedpyright"; do \
		echo "$$tool"; $(BIN)/$$tool || failed="$$failed [$$tool]"; \
	done; test -z "$$failed" || { echo "failed:$$failed"; exit 1; }

format: $(VENV)/tests  ## mend what ruff can mend
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# the upper end of the ranges in pyproject.toml; the lower one is what `make test` uses
newest: $(NEWEST_VENV)/ready  ## all tests with the newest versions that pyproject.toml allows
	$(NEWEST_VENV)/bin/python $(PYTEST)

$(NEWEST_VENV)/ready: pyproject.toml setup.py requirements-dev.txt
	@test -x $(NEWEST_VENV)/bin/python || $(NEWEST_PYTHON) -m venv $(NEWEST_VENV)
	$(NEWEST_VENV)/bin/python $(PIP_INSTALL) --upgrade --upgrade-strategy eager -e . -r requirements-dev.txt
	@$(NEWEST_VENV)/bin/python -m pip list --disable-pip-version-check | grep -E '^(jax|jaxlib|flax|optax|orbax-checkpoint|numpy) '
	@touch $@

gym: $(VENV)/tests  ## install reasoning-gym, an extra, and check its allowed tasks
	$(BIN)/python $(PIP_INSTALL) -r requirements-gym.txt
	$(BIN)/python -m pytest tests/test_gym.py

# in an environment of their own
parity: $(PARITY_VENV)/ready  ## every model family against torch and transformers
	$(PARITY_VENV)/bin/python -m tests.parity.write_fixtures --check
	$(PARITY_VENV)/bin/python -m pytest -n 2 tests/parity/live.py tests/parity/live_text.py

$(PARITY_VENV)/ready: requirements.txt requirements-dev.txt requirements-parity.txt
	@test -x $(PARITY_VENV)/bin/python || $(PYTHON) -m venv $(PARITY_VENV)
	$(PARITY_VENV)/bin/python $(PIP_INSTALL) -r requirements.txt -r requirements-dev.txt
	$(PARITY_VENV)/bin/python $(PIP_INSTALL) --retries 1 -r requirements-parity.txt
	@touch $@

real: $(VENV)/tests  ## the whole way on a real model: FOLDER=... of SmolLM2-135M or Gemma 3 270M, about 12 minutes
	@test -n "$(FOLDER)" || { echo "make real FOLDER=... : name the Hugging Face folder or GGUF file of a small model"; exit 1; }
	$(BIN)/python -m tests.real_model $(FOLDER)

docs: $(VENV)/tests  ## build the docs site in site/
	$(BIN)/python $(PIP_INSTALL) -r requirements-docs.txt
	$(BIN)/python -m mkdocs build --strict

notebook: $(VENV)/tests  ## run docs/quickstart.ipynb and keep its outputs
	$(BIN)/python $(PIP_INSTALL) -r requirements-docs.txt
	$(BIN)/python -c "import nbclient, nbformat; path = 'docs/quickstart.ipynb'; book = nbformat.read(path, 4); \
		nbclient.NotebookClient(book, record_timing=False, coalesce_streams=True).execute(); nbformat.write(book, path)"

bench: setup  ## check and measure this machine: its accelerator, and its CPU beside the peers of `make peers`
	$(BIN)/python -m benchmarks.accelerator
	$(BIN)/python -m benchmarks.peers --out benchmarks/results/peers_cpu.jsonl

peers: $(PEER_VENVS:=/ready)  ## install google-tunix, and torch with TRL, in environments of their own, for `make bench`

$(PEER_VENVS:=/ready): .venv-%/ready: benchmarks/peers/requirements-%.txt
	@test -x .venv-$*/bin/python || $(PYTHON) -m venv .venv-$*
	.venv-$*/bin/python $(PIP_INSTALL) --retries 1 -r $<
	@touch $@

clean:  ## remove the environments and caches
	rm -rf $(VENV) $(PARITY_VENV) $(NEWEST_VENV) $(CLIENTS_VENV) $(PEER_VENVS) .pytest_cache .ruff_cache build dist site rljax.egg-info
