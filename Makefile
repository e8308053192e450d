# Two commands: `make demo` runs the whole chain, `make test` proves it. Both set up .venv by themselves.
# TORCH_INDEX_URL takes torch from another index, say https://download.pytorch.org/whl/cpu for the CPU build.
TORCH_INDEX_URL ?=
export TORCH_INDEX_URL

PYTHON := .venv/bin/python
PYTEST_ARGS ?=
# Processes that share the tests, file by file; 0 runs all of them in one. Each computes on one core.
PROCESSES ?= 2
DEMO_ARGS ?=

.PHONY: help setup demo test test-fast test-random lint docs wheel clean
help:
	@echo "make demo    the whole chain on built-in animated assets; ends with demo/index.html"
	@echo "make test    every test; what they draw is the same each time"
	@echo "make test-fast     what needs neither Blender, Ray, ../shared nor more than 10 s"
	@echo "make test-random   the tests that draw their inputs, with a fresh seed (SEED=N draws the same again)"
	@echo "make lint    ruff, mypy and the law of imports"
	@echo "make docs    docs/_build/html, without a network"
	@echo "make wheel   dist/orbit4d-*.whl, which ray_cluster.yaml carries to a cluster"
	@echo "make bench-ablate bench-animate bench-compose bench-curate bench-curate_labels bench-data"
	@echo "     bench-eval bench-export bench-fleet bench-geometry bench-gpu bench-learn bench-nvs"
	@echo "     bench-rasterize bench-recon bench-render bench-results bench-review bench-rigs"
	@echo "     bench-scene_exports bench-sync bench-train"

setup:
	@sh app/setup.sh

demo: setup
	@.venv/bin/orbit4d demo --out demo $(DEMO_ARGS)

test: setup
	@OMP_NUM_THREADS=1 .venv/bin/pytest -n $(PROCESSES) --dist loadfile --no-loadscope-reorder $(PYTEST_ARGS)

# Chance may find faults here without turning `make test` red. The seed is printed first.
test-random: SEED := $(or $(SEED),$(shell date +%s))
test-random: setup
	@echo "make test-random SEED=$(SEED)"
	@ORBIT4D_TEST_SEED=$(SEED) .venv/bin/pytest -m random --hypothesis-seed=$(SEED) $(PYTEST_ARGS)

test-fast: setup
	@.venv/bin/pytest -m "not slow and not blender and not ray and not shared" $(PYTEST_ARGS)

docs: setup
	@$(PYTHON) -c "import sphinx, furo, myst_parser" 2>/dev/null || \
		$(PYTHON) -m pip install --quiet --disable-pip-version-check --constraint constraints.txt '.[docs]'
	@$(PYTHON) docs/generated.py >/dev/null && $(PYTHON) -m sphinx -q -W --keep-going -b html docs docs/_build/html
	@echo "docs/_build/html/index.html"

lint: setup
	@.venv/bin/ruff check . && .venv/bin/ruff format --check . && .venv/bin/pytest -q tests/test_house.py tests/test_types.py

wheel: setup
	@rm -rf dist && $(PYTHON) -m build --outdir dist . >/dev/null && ls dist

bench-%: setup
	@$(PYTHON) bench/$*.py $(BENCH_ARGS)

clean:
	rm -rf build dist demo *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis
