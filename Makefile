# astolfo: `make results/ID.safetensors` builds, `make test` tests. `make help` lists the rest.
#
# Everything runs in .venv, made from the hashed locks in envs/ with this machine's Python and pip; nothing outside this
# folder is touched. Any target below results/, evaluations/, bases/, states/ ... is handed to Snakemake.

PYTHON ?= python3
SCALE ?=
LEDGER ?=
DIR ?= .
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/ready
EVIDENCE := $(VENV)/evidence
ROOT := $(dir $(abspath $(lastword $(MAKEFILE_LIST))))
# Targets come first: --config takes every word that follows it.
CONFIG = $(if $(SCALE)$(LEDGER),--config $(if $(SCALE),scale=$(SCALE)) $(if $(LEDGER),"ledger=$(abspath $(LEDGER))"))
SNAKEMAKE = $(ROOT)envs/snakemake $@ --snakefile $(ROOT)workflow/Snakefile --directory "$(DIR)" $(CONFIG)
ASTOLFO = $(BIN)/astolfo $(if $(SCALE),--scale $(SCALE)) $(if $(LEDGER),--config "$(LEDGER)")

.PHONY: help env evidence ledger site verify test test-all lint lock clean FORCE
.DEFAULT_GOAL := help

help:
	@echo 'make results/ID.safetensors     build a run (miniature scale; SCALE=full DIR=/big/disk for the real thing)'
	@echo 'make evaluations/ID/index.html  its pictures and numbers'
	@echo 'make site                       site/index.html: everything that is built, to look at and to give away'
	@echo 'make ledger                     every run of the ledger, with its merges; make verify: compare the digests'
	@echo 'make ... LEDGER=FOLDER          of another ledger than config/'
	@echo 'make test                       the test suite; make test-all: the longer proofs as well'
	@echo 'make env                        the environment alone, in .venv; make evidence: what signs, verifies and packs'
	@echo 'make lint                       formats and lint; make lock: refresh the locks'

env: $(READY)

$(READY): envs/lock.txt envs/build.txt envs/cluster.txt envs/install
	@envs/install $(PYTHON) $(VENV)

# What signs and packs evidence for other people's programs: optional, and needed by the tests.
evidence: $(EVIDENCE)

$(EVIDENCE): envs/evidence.txt $(READY)
	@$(BIN)/python -m pip --disable-pip-version-check install --quiet --require-hashes --no-deps -r envs/evidence.txt
	@touch $@

results/% evaluations/% losses/% bases/% states/% datasets/% rebuilt/% vocabulary/%: FORCE $(READY)
	@$(SNAKEMAKE)

# Jobs run side by side, each in one process: with many short runs that is faster, and it decides no bit.
ledger: FORCE $(READY)
	@$(SNAKEMAKE) --set-threads segment=1

site: $(READY)
	@$(ASTOLFO) site --directory "$(DIR)"

verify: $(READY)
	@$(ASTOLFO) verify --directory "$(DIR)"

docs/sd-scripts.md: FORCE $(READY)
	@$(BIN)/astolfo ledger options > $@

docs/ledger.md: FORCE $(READY)
	@$(BIN)/astolfo ledger table --markdown > $@

report.zip: FORCE $(READY)
	@$(subst $@,--report $@,$(SNAKEMAKE))

test: $(READY) $(EVIDENCE)
	@$(BIN)/python -m pytest -n 2 --dist worksteal

test-all: $(READY) $(EVIDENCE)
	@$(BIN)/python tests/stages.py $(if $(BUDGET),--budget $(BUDGET))

lint: $(READY)
	@$(BIN)/ruff format --check . && $(BIN)/ruff check .
	@$(BIN)/snakefmt --check workflow
	@$(BIN)/python -m pytest tests/workflow/test_graph.py -k "lint or formatted or param"

lock:
	@envs/relock $(PYTHON)

FORCE:
