# Everything runs in .venv, made from requirements.lock (hashes checked) and requirements.torch.
#
#   PYTHON         the interpreter that makes .venv, 3.11 or newer          make PYTHON=python3.12 test
#   TORCH_OPTIONS  options for installing PyTorch, to choose another build  make TORCH_OPTIONS='--index-url …' test
#   PYTEST_ARGS    more arguments for pytest                                make test PYTEST_ARGS='-k merkle'

PYTHON ?= python3
TORCH_OPTIONS ?=
PYTEST_ARGS ?=

BIN := .venv/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check
UV ?= $(firstword $(wildcard $(BIN)/uv) uv)

.DEFAULT_GOAL := help
.PHONY: help demo test browser lint format docs kernel settings coverage attacks results bench lock clean
.DELETE_ON_ERROR:

help:  ## List the targets
	@sed -n 's/^\([a-z]*\):.*## \(.*\)/  make \1\t\2/p' Makefile | expand -t 16

demo: .venv/.ready  ## Record a run, verify it, and see tampered copies rejected
	rm -rf build/demo
	$(BIN)/gradseal demo --out build/demo

test: .venv/.ready  ## Run the tests
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --ignore=tests/browser $(PYTEST_ARGS)

browser: .venv/.ready  ## Look at the report in Chromium (needs it and its driver)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -rs tests/browser

lint: .venv/.ready  ## Check style, format and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: .venv/.ready  ## Format the code and apply ruff's safe fixes
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# The variable silences a notice about the theme's future, none about our pages.
docs: .venv/.ready  ## Build the documentation into build/site
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

kernel: .venv/.ready  ## Compile the kernels of exact arithmetic anew
	$(BIN)/python hatch_build.py

settings: .venv/.ready  ## Replay exact recordings under all settings, into docs/reference/settings.md
	$(BIN)/python tests/settings.py

coverage: .venv/.ready  ## Record and verify each model with each optimizer, into docs/reference/coverage.md
	OMP_NUM_THREADS=1 HF_HUB_OFFLINE=1 $(BIN)/python tests/coverage_table.py

attacks: .venv/.ready  ## Carry out every attack on time, into docs/reference/attacks.md
	OMP_NUM_THREADS=1 $(BIN)/python tests/attack_table.py

results: .venv/.ready  ## Make the study, and README's and the docs' results of it
	OMP_NUM_THREADS=1 $(BIN)/gradseal study --out build/study
	OMP_NUM_THREADS=1 $(BIN)/gradseal study matrix --out build/study > build/study/matrix.txt
	$(BIN)/python tests/study_pages.py build/study
	$(BIN)/python tests/attack_pages.py build/study

bench: .venv/.ready  ## Run the benchmarks
	$(BIN)/python -m benchmarks.run

lock:  ## Compile requirements.lock anew, with the newest versions that fit
	$(UV) pip compile --quiet --upgrade --universal --python-version 3.11 --all-extras --generate-hashes \
		--no-emit-index-url --no-emit-find-links --no-annotate \
		--excludes requirements.torch --custom-compile-command 'make lock' \
		--output-file requirements.lock pyproject.toml requirements.in

clean:  ## Remove .venv and everything built
	rm -rf .venv build dist .mypy_cache .pytest_cache .ruff_cache .hypothesis
	find src tests -name __pycache__ -type d -prune -exec rm -rf {} +

# The lock comes before PyTorch, whose own requirements are then already there in their locked versions.
.venv/.ready: requirements.lock requirements.torch pyproject.toml hatch_build.py $(wildcard src/gradseal/program/exact/c/*)
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
		echo "Gradseal needs Python 3.11 or newer; '$(PYTHON)' is not that." >&2; \
		echo "Name another one: make PYTHON=/path/to/python3.11 …" >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { \
		echo "'$(PYTHON)' cannot make virtual environments: its venv module is missing." >&2; \
		echo "On Debian and Ubuntu it is in the package python3-venv." >&2; exit 1; }
	@test -x $(BIN)/pip || $(PYTHON) -m venv --clear .venv
	$(PIP) install --quiet --require-hashes --no-deps -r requirements.lock
	$(PIP) install --quiet $(TORCH_OPTIONS) -r requirements.torch
	$(PIP) install --quiet --no-deps --no-build-isolation -e .
	$(PIP) check
	@touch $@
