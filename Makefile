# Nothing to install by hand: every target sets up .venv first, and again only when the pinned versions change.

PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
STAMP  := $(VENV)/installed
# Without the last option xdist waits for ever after a crash.
PYTEST := $(BIN)/pytest -q -n auto --dist loadfile --max-worker-restart 0
REFERENCE := .venv_reference

.DEFAULT_GOAL := help
.PHONY: help demo test slow check docs bench reference clean

help: ## list the targets
	@grep -hE '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z]+):.*## (.*)/  make \1\t\2/' | expand -t 16

demo: $(STAMP) ## draw cars, split, crop, train on whole images and crops, evaluate both: a few minutes
	@$(BIN)/whichcar demo $(if $(REAL),--real '$(REAL)' --into demo_real)

test: $(STAMP) ## run the tests; one that hangs ends the run and prints the stacks of its threads
	@$(PYTEST) -o faulthandler_timeout=300 -o faulthandler_exit_on_timeout=true

slow: $(STAMP) ## run the tests that take long: real trainings, kills, hostile images
	@$(PYTEST) -m slow

reference: $(REFERENCE)/installed ## compare the detectors' decoders with PyTorch models (an environment of its own)
	@$(REFERENCE)/bin/pytest -q tests/detection/test_onnx_reference.py

check: $(STAMP) ## ruff and mypy --strict
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy

docs: $(STAMP) ## write the tables of docs/ and build its pages into build/docs
	@$(BIN)/python docs/generate.py
	@NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build

bench: $(STAMP) ## measure speed and memory; each script prints a Markdown table
	@set -e; for script in benchmarks/[a-z]*.py; do echo "## $$script"; $(BIN)/python "$$script"; done

clean: ## remove the environment and the demo
	rm -rf $(VENV) $(REFERENCE) demo demo_real .mypy_cache .ruff_cache .pytest_cache

$(STAMP): pyproject.toml constraints.txt
	@command -v $(PYTHON) >/dev/null || { echo "error: no $(PYTHON) here; install Python 3.11, 3.12 or 3.13"; exit 1; }
	@$(PYTHON) -c 'import sys; ok = (3, 11) <= sys.version_info < (3, 14); \
	  ok or sys.exit("error: whichcar needs Python 3.11, 3.12 or 3.13 (TensorFlow has no build for others); $(PYTHON) is " \
	  + sys.version.split()[0] + ". Name another one: make PYTHON=python3.12 ...")'
	@echo "setting up $(VENV) (4 GB on disk, once) ..."
	@$(PYTHON) -m venv $(VENV) || { echo "error: cannot make $(VENV); on Debian or Ubuntu: apt install python3-venv"; exit 1; }
	@$(BIN)/pip install -q --no-compile --disable-pip-version-check -c constraints.txt -e '.[cpu,export,fetch,hf,check,litert,mlflow,openvino,sweep,postgresql,ray,serve,test,dev,docs]'
	@touch $@

$(REFERENCE)/installed: pyproject.toml constraints.txt
	@echo "setting up $(REFERENCE) (torch and transformers, once) ..."
	@$(PYTHON) -m venv $(REFERENCE)
	@$(REFERENCE)/bin/pip install -q --no-compile --disable-pip-version-check -c constraints.txt -e '.[reference]'
	@touch $@
