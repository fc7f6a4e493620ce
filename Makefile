# astolfo: `make results/ID.safetensors` builds, `make test` tests. `make help` lists the rest.
#
# Everything runs in .venv, made from the hashed locks in envs/ with this machine's Python; nothing outside this folder
# is touched but pip's and uv's caches. Any target below results/, evaluations/, bases/, states/ ... is handed to Snakemake.

PYTHON ?= python3
SCALE ?=
LEDGER ?=
DIR ?= .
VERBOSE ?=
VENV := .venv
BIN := $(VENV)/bin
ROOT := $(dir $(abspath $(lastword $(MAKEFILE_LIST))))
# Targets come first: --config takes every word that follows it.
CONFIG = $(if $(SCALE)$(LEDGER),--config $(if $(SCALE),scale=$(SCALE)) $(if $(LEDGER),"ledger=$(abspath $(LEDGER))"))
SNAKEMAKE = $(ROOT)envs/snakemake $@ --snakefile $(ROOT)Snakefile --directory "$(DIR)" $(if $(VERBOSE),--verbose) $(CONFIG)
ASTOLFO = $(BIN)/astolfo $(if $(SCALE),--scale $(SCALE)) $(if $(LEDGER),--config "$(LEDGER)")

.PHONY: help env evidence develop ledger site verify check test test-all lint lock FORCE
.DEFAULT_GOAL := help

help:
	@echo 'make results/ID.safetensors     build a run (miniature scale; SCALE=full DIR=/big/disk for the real thing)'
	@echo 'make evaluations/ID/index.html  its pictures and numbers'
	@echo 'make site                       site/index.html: everything that is built, to look at and to give away'
	@echo 'make report.zip                 Snakemake'"'"'s report on the ledger'"'"'s targets, a page to unzip and open'
	@echo 'make ledger                     every run of the ledger, with its merges; make verify: compare the digests'
	@echo 'make ... LEDGER=FOLDER          of another ledger than config/; make ... VERBOSE=1: all that Snakemake says'
	@echo 'make test                       the test suite; make test-all: the longer proofs as well'
	@echo 'make check                      formats, lint, types, the ledger and pure functions: the loop of editing'
	@echo 'make env                        the environment alone, in .venv; make evidence: what signs, verifies and packs'
	@echo 'make lint                       formats, lint and types; make lock: refresh the locks'

# Makes nothing where .venv was made from locks of this content.
env:
	@$(ROOT)envs/install $(PYTHON) $(VENV)

# What signs and packs evidence for other people's programs: optional, and needed by the tests.
evidence:
	@$(ROOT)envs/install $(PYTHON) $(VENV) evidence

# What checks and tests this project besides pytest and ruff.
develop:
	@$(ROOT)envs/install $(PYTHON) $(VENV) develop

results/% evaluations/% losses/% bases/% states/% datasets/% rebuilt/% vocabulary/%: FORCE env
	@$(SNAKEMAKE)
	@$(if $(filter results/%.safetensors,$@),$(ASTOLFO) verify --digest "$(DIR)/$@" --directory "$(DIR)")

# Jobs run side by side, each in one process: with many short runs that is faster, and it decides no bit.
ledger: FORCE env
	@$(SNAKEMAKE) --set-threads segment=1

site: env
	@$(ASTOLFO) site --directory "$(DIR)"

verify: env
	@$(ASTOLFO) verify --directory "$(DIR)"

docs/sd-scripts.md: FORCE env
	@$(BIN)/astolfo ledger options > $@

docs/ledger.md: FORCE env
	@$(BIN)/astolfo ledger table --markdown > $@

# Of the ledger's targets, which are built first: Snakemake reports on nothing less.
report.zip: FORCE env
	@$(subst $@,,$(SNAKEMAKE))
	@$(subst $@,--report $@,$(SNAKEMAKE))

# The loop of editing: formats, lint, types, the ledger and pure functions.
check: develop
	@$(BIN)/ruff format --check . && $(BIN)/ruff check . && $(BIN)/snakefmt --check workflow && $(BIN)/mypy
	@$(BIN)/python -m pytest tests/ledger tests/plan tests/test_files.py tests/test_randomness.py

test: evidence develop
	@$(BIN)/python -m pytest -n 2 --dist worksteal

test-all: evidence develop
	@$(BIN)/python tests/stages.py $(if $(BUDGET),--budget $(BUDGET))

lint: develop
	@$(BIN)/ruff format --check . && $(BIN)/ruff check . && $(BIN)/mypy
	@$(BIN)/snakefmt --check workflow
	@$(BIN)/python -m pytest tests/workflow/test_graph.py -k "lint or formatted or param"

lock:
	@envs/relock $(PYTHON)

FORCE:
