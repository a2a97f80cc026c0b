# Two commands for a newcomer: `make quickstart` and `make test`. Each sets up what it needs first.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
SEED ?= 0
JOBS ?= 2
# More arguments for the quickstart's recipe.
ARGS ?=

.PHONY: install quickstart test lint format clean

install: $(STAMP)

$(STAMP): pyproject.toml constraints.txt tests/oracles.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --upgrade pip
	$(BIN)/pip install --quiet --constraint constraints.txt --editable ".[recipes,dev]"
	$(BIN)/pip install --quiet --no-deps --requirement tests/oracles.txt
	touch $@

quickstart: install
	$(BIN)/accelerate launch --num_processes 1 --num_machines 1 --mixed_precision no --dynamo_backend no --cpu \
		recipes/pretrain.py --config recipes/quickstart.yaml --seed $(SEED) --output_dir runs/quickstart $(ARGS)

test: install
	$(BIN)/python -m pytest -n $(JOBS)

lint: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/basedpyright

format: install
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:
	rm -rf $(VENV) runs .pytest_cache .ruff_cache .hypothesis
