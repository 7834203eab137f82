# `make demo` classifies the example pictures with the shipped model in a small environment of its own.
# `make test` sets up everything that the tests need, and runs them.

PYTHON ?= python3
DEMO := .venv-demo
FULL := .venv

.PHONY: demo test lint wheel results model clean

demo: $(DEMO)/.installed
	$(DEMO)/bin/clothing predict examples

test: $(FULL)/.installed
	$(FULL)/bin/python -m pytest --numprocesses auto --maxprocesses 4 --dist loadfile

lint: $(FULL)/.installed
	$(FULL)/bin/ruff check .
	$(FULL)/bin/ruff format --check .
	$(FULL)/bin/mypy

# Runs every approach again on DATA; WEIGHTS is `hub`, or a folder of safetensors files.
results: $(FULL)/.installed
	$(FULL)/bin/python results/run.py --data $(or $(DATA),clothing-dataset) --weights $(or $(WEIGHTS),hub)

# Makes the shipped model again from DATA and tf_efficientnet_b0.safetensors in the folder WEIGHTS.
model: $(FULL)/.installed
	$(FULL)/bin/python results/model.py --data $(or $(DATA),clothing-dataset) --weights $(or $(WEIGHTS),pretrained)

wheel: $(DEMO)/.installed
	$(DEMO)/bin/python -m pip wheel --quiet --disable-pip-version-check --no-deps --wheel-dir dist .

clean:
	rm -rf $(DEMO) $(FULL) build dist

$(DEMO)/.installed: pyproject.toml
	$(PYTHON) -m venv $(DEMO)
	$(DEMO)/bin/python -m pip install --quiet --disable-pip-version-check -e .
	touch $@

$(FULL)/.installed: pyproject.toml
	$(PYTHON) -m venv $(FULL)
	$(FULL)/bin/python -m pip install --quiet --disable-pip-version-check -e ".[dev]"
	touch $@
