# Everything sets itself up: a machine with Python >= 3.11 and make is enough.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
STAMP  := $(VENV)/.installed
# Tests run side by side, one process a core; each takes about 1 GiB.
BESIDE := --numprocesses auto --maxprocesses 8 --dist worksteal

.PHONY: setup demo test test-ci test-slow test-all mutants check audit sbom fuzz bench pages docs dist clean

setup: $(STAMP)

$(STAMP): pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "prod9 needs Python 3.11 or newer: make PYTHON=python3.12")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet --constraint constraints.txt torch
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev]'
	touch $@

demo: setup
	$(BIN)/prod9 demo $(ARGS)

test: setup
	$(BIN)/pytest $(BESIDE) -m "not slow"

# What CI runs: the everyday tests, and those of the slow ones that are marked ci.
test-ci: test
	$(BIN)/pytest $(BESIDE) -m ci

test-slow: setup
	$(BIN)/pytest $(BESIDE) -m slow

test-all: test test-slow

# Mistakes made on purpose, one at a time: which test finds each? make mutants ARGS='--only NAME'
mutants: setup
	$(BIN)/python tools/mutants.py $(ARGS)

check: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright
	$(BIN)/lint-imports
	$(BIN)/python tools/config_page.py --check docs/configuration.md
	$(BIN)/python -m prod9.results.document --check docs/metrics.md
	$(BIN)/python tools/api_page.py --check docs/api.md
	$(BIN)/pytest -q -m "not slow" tests/docs
	$(BIN)/python tools/audit.py

# Known weaknesses of the pinned packages; one line, and no failure, without network.
audit: setup
	$(BIN)/python tools/audit.py

# What the demo's environment is made of, as CycloneDX JSON.
sbom: setup
	$(BIN)/python tools/sbom.py $(or $(SBOM),outputs/sbom.json)

# Every reader of files, each for so many seconds, guided by coverage: make fuzz SECONDS=60
fuzz: setup
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[fuzz]'
	$(BIN)/python tests/fuzz/run_fuzz.py --seconds $(or $(SECONDS),60) $(ARGS)

bench: setup
	$(BIN)/python -m benchmarks $(ARGS)

# Pages that are generated from the code and from measurements.
pages: setup
	$(BIN)/python tools/config_page.py docs/configuration.md
	$(BIN)/python -m prod9.results.document > docs/metrics.md
	$(BIN)/python tools/api_page.py > docs/api.md
	$(BIN)/python -m benchmarks --tables > benchmarks/results/README.md
	$(BIN)/python -m benchmarks --tables --results benchmarks/results/avx2 > benchmarks/results/avx2/README.md
	$(BIN)/python -m benchmarks --plots docs/images

# The site, in outputs/site/index.html: opens from disk. A broken link is an error.
docs: setup
	$(BIN)/sphinx-build --fail-on-warning --keep-going --nitpicky --quiet docs outputs/site

# Wheel and sdist, in dist.
dist: setup
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[release]'
	rm -rf dist
	$(BIN)/python -m build --outdir dist
	$(BIN)/twine check --strict dist/*

clean:
	rm -rf $(VENV) .pytest_cache .ruff_cache .hypothesis .import_linter_cache
