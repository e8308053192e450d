# Two commands: `make demo` runs the whole chain, `make test` proves it. Both set up .venv by themselves.
# TORCH_INDEX_URL takes torch from another index, say https://download.pytorch.org/whl/cpu for the CPU build.
TORCH_INDEX_URL ?=
export TORCH_INDEX_URL

PYTHON := .venv/bin/python
PYTEST_ARGS ?=
DEMO_ARGS ?=

.PHONY: help setup demo test lint wheel clean
help:
	@echo "make demo    the whole chain on built-in animated assets; ends with demo/index.html"
	@echo "make test    every test"
	@echo "make lint    ruff and mypy"
	@echo "make wheel   dist/orbit4d-*.whl, which ray_cluster.yaml carries to a cluster"
	@echo "make bench-render bench-curate bench-data bench-train bench-learn bench-ablate bench-recon bench-eval"

setup:
	@sh app/setup.sh

demo: setup
	@.venv/bin/orbit4d demo --out demo $(DEMO_ARGS)

test: setup
	@.venv/bin/pytest $(PYTEST_ARGS)

lint: setup
	@.venv/bin/ruff check . && .venv/bin/ruff format --check . && .venv/bin/pytest -q tests/test_house.py

wheel: setup
	@rm -rf dist && $(PYTHON) -m build --outdir dist . >/dev/null && ls dist

bench-%: setup
	@$(PYTHON) bench/$*.py $(BENCH_ARGS)

clean:
	rm -rf build dist demo *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis
