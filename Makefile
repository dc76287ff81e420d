# make preprocess train eval   the main job; sets everything up by itself on first use
# make test                    the tests
#
# Variables: MUSDB_PATH (dataset; unset: demo songs), PRESET, MAX_MINUTES, STEPS, EPOCHS, MODEL, INPUT, OUTPUT, STORE,
# WORKERS, KIND, SEED, SKIP_FAILED=1 (continue without songs that fail), PORT (of serve and page), ARGS (further options of the step),
# PYTHON (interpreter for the virtual environment).

SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
.PHONY: help setup demo-data preprocess train eval separate page compare doctor serve stop model retrain schedule \
  unschedule test lint bench docs clean

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

export MUSDB_PATH
ifeq ($(MUSDB_PATH),)
unexport MUSDB_PATH
endif
export PREFECT_HOME ?= $(CURDIR)/data/prefect

option = $(if $($(2)),--$(1) "$($(2))")
STORE_OPTION = $(call option,store,STORE)
PREPROCESS_OPTIONS = $(STORE_OPTION) $(call option,preset,PRESET) $(call option,kind,KIND) $(call option,workers,WORKERS) \
  $(if $(SKIP_FAILED),--skip-failed)
BUDGET_OPTIONS = $(call option,max-minutes,MAX_MINUTES) $(call option,steps,STEPS) $(call option,epochs,EPOCHS) \
  $(call option,seed,SEED)
TRAIN_OPTIONS = $(STORE_OPTION) $(BUDGET_OPTIONS)
ALL_BINS = data/all-bins.zarr
EVAL_OPTIONS = $(STORE_OPTION) $(call option,model,MODEL) $(call option,kind,KIND) $(call option,workers,WORKERS)

# The steps named in one call run in one process, with one Prefect server: the first target runs all, the others nothing.
STEPS_NAMED := $(filter preprocess train eval,$(MAKECMDGOALS))
FLOWS = $(foreach step,$(STEPS_NAMED),$(if $(filter preprocess,$(step)),preprocess $(PREPROCESS_OPTIONS))\
  $(if $(filter train,$(step)),train $(TRAIN_OPTIONS))$(if $(filter eval,$(step)),evaluate $(EVAL_OPTIONS)))

help: ## List the targets.
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F':.*## ' '{printf "  make %-12s %s\n", $$1, $$2}'
	@echo "Variables: MUSDB_PATH=folder PRESET=fine|notebook MAX_MINUTES=n STEPS=n EPOCHS=n SEED=n MODEL=name INPUT=path"
	@echo "           OUTPUT=folder STORE=folder KIND=karaoke SKIP_FAILED=1 WORKERS=n PORT=n CONFIG=system"
	@echo "           ARGS=\"--option value\""

setup: $(STAMP) ## Install everything into .venv (done by the other targets when needed).

$(STAMP): constraints.txt pyproject.toml
	@echo "Setting up $(VENV) (a few minutes, once; all that pip says: $(VENV)/setup.log) ..."
	@[ -x $(BIN)/pip ] || $(PYTHON) -c 'import sys; sys.exit("Python 3.11 or newer is needed; name one with PYTHON=...") if sys.version_info < (3, 11) else 0'
	@[ -x $(BIN)/pip ] || $(PYTHON) -m venv $(VENV) || { echo "no venv module: apt-get install python3-venv"; exit 2; }
	@$(BIN)/python -m pip install --disable-pip-version-check --progress-bar off -c constraints.txt -e '.[dev]' 2>&1 | \
	  $(BIN)/python .ci/setup_progress.py $(VENV)/setup.log constraints.txt || \
	  { echo "set-up failed; all that pip said: $(VENV)/setup.log"; exit 2; }
	@echo "  compiling librosa ..."
	@$(BIN)/python -c 'from vocsep.spectrograms.stft import compile_istft; compile_istft()'
	@touch $@

demo-data: setup ## Make the demo songs in data/demo.
	@$(BIN)/vocsep demo-data $(ARGS)

preprocess train eval: setup
	@$(if $(filter $@,$(firstword $(STEPS_NAMED))),$(BIN)/python -m flows $(FLOWS) $(ARGS),:)
preprocess: ## Write spectrograms of MUSDB_PATH (or of the demo songs) to data/spectrograms.zarr.
train: ## Train a model; MAX_MINUTES, STEPS or EPOCHS set the budget (without: 1600 steps, at most 15 minutes).
eval: ## Score the newest model (or MODEL) on the test songs; report in data/reports/latest.

separate: setup ## Separate INPUT (a file or folder) into OUTPUT (data/separated).
	@$(if $(INPUT),,echo "INPUT is missing, as in: make separate INPUT=song.mp3" >&2; exit 2)
	@$(BIN)/vocsep separate "$(INPUT)" $(call option,output,OUTPUT) $(call option,model,MODEL) $(ARGS)

page: setup ## Separate songs and listen to the stems in a browser (PORT, 4280); Ctrl-C stops it.
	@$(BIN)/vocsep page $(call option,port,PORT) $(ARGS)

compare: setup ## Train the systems of the original analysis side by side; report in data/comparison.
	@$(BIN)/python -m flows preprocess $(call option,kind,KIND) --preset $(or $(PRESET),fine)-513 --store $(ALL_BINS) \
	  compare --store $(ALL_BINS) $(call option,steps,STEPS) $(ARGS)

doctor: setup ## Say what is wrong with a training set-up: CONFIG (a system or a file), STORE.
	@$(BIN)/vocsep doctor $(call option,config,CONFIG) $(STORE_OPTION) $(ARGS)

serve: setup ## Start Prefect's server, all deployments and a worker on this machine (PORT, 4200); see docs/guides/unattended.md.
	@$(BIN)/python -m flows serve $(call option,port,PORT) $(ARGS)

stop: setup ## Stop exactly what `make serve` started; trainings save themselves first.
	@$(BIN)/python -m flows stop

model: setup ## Make the bundled model again from recipes/bundled.yaml (takes hours; resumes when run again).
	@$(BIN)/python -m flows recipe recipes/bundled.yaml $(ARGS)

retrain: setup ## Add new songs, train, and let a model that is better on the test songs become the champion.
	@$(BIN)/python -m flows retrain $(PREPROCESS_OPTIONS) $(BUDGET_OPTIONS) $(ARGS)

schedule: setup ## Turn on the weekly retraining of `make serve` (off again: make unschedule).
	@$(BIN)/python -m flows schedule

unschedule: setup
	@$(BIN)/python -m flows schedule --off

test: setup ## Run the tests, in three processes of one thread each: some mostly wait.
	@OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 3 --dist loadfile $(ARGS)

lint: setup ## Check style, types and import rules.
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports --no-cache

bench: setup ## Run the benchmarks on an idle machine and write docs/benchmarks.md; resumes when run again.
	@$(BIN)/python -m benchmarks.report $(ARGS)

docs: setup ## Build the documentation in site/; no network is needed.
	@NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet
	@echo "open site/index.html; with search: $(BIN)/python -m http.server --directory site --bind 127.0.0.1"

clean: ## Delete the virtual environment and caches; data/ stays.
	@rm -rf $(VENV) site *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
