# The book's commands. `make` alone lists them.
SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:

PYTHON ?= python3
BIN := .venv/bin
# Whole notebooks go to the two workers, never single cells.
PYTEST ?= $(BIN)/pytest --nbval -n 2 --dist loadscope
# A process each: TensorFlow never lets go of what XLA compiled, and one that ran all tests held 8 GB.
HALVES = backends 'not backends'
# A CPU build of torch; where your index has none, name another: TORCH=torch==2.13.0, or pass TORCH_OPTIONS to pip.
TORCH ?= torch==2.13.0+cpu
TORCH_OPTIONS ?=
# `make colab` takes the Python of the release from the path; this names another.
COLAB_PYTHON ?=
# Two workers, a file each. The files without such tests are not even imported.
BACKENDS = $(BIN)/pytest $$(grep -l 'mark\.backends' tests/test_*.py) -n 2 --dist loadscope -m backends
OLDEST_KERAS = HYPOTHESIS_PROFILE=few PYTHONPATH='$(CURDIR)/.venv/keras-minimum:.'
HAS_TORCH = $(BIN)/python -c 'import torch' 2>/dev/null
COMPILE = _build/lock/bin/uv pip compile -q --universal --python-version 3.11 --generate-hashes --no-header --no-annotate
# The oldest Keras that lib promises to run on, read from where it is promised.
KERAS_MINIMUM = $(shell sed -n 's/^KERAS_MINIMUM = "\(.*\)"/\1/p' lib/__init__.py)
export PYTHONPATH := .
export TF_CPP_MIN_LOG_LEVEL := 3
# Two workers on two cores: where each multiplies with two threads, these wait for one another.
test test-backends fuzz portability newest: export OPENBLAS_NUM_THREADS := 1
test test-backends fuzz portability newest: export OMP_NUM_THREADS := 1

.PHONY: help book test test-backends fuzz portability coverage speed lighthouse colab newest links lab student \
  pdf picture messages execute bench gpu release address lock clean

help: ## list the commands
	@sed -n 's/^\([a-z-]*\):[^#]*## /\1\t/p' $(MAKEFILE_LIST) | awk -F '\t' '{printf "make %-14s %s\n", $$1, $$2}'

book: .venv/page ## build the site and say which page to open
	@$(BIN)/python -m lib.press.site

test: .venv/ready ## lint, build the site, run unit tests, page tests and every notebook
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	@$(BIN)/python -m lib.press.site
	failed=0; for half in $(HALVES); do $(PYTEST) -m "$$half" || failed=1; done; exit $$failed

test-backends: .venv/backends ## run the tests of lib's layers on JAX, on torch and on the oldest Keras
	HYPOTHESIS_PROFILE=few KERAS_BACKEND=jax $(BACKENDS)
	if $(HAS_TORCH); then KERAS_BACKEND=torch $(BACKENDS); \
	  $(OLDEST_KERAS) KERAS_BACKEND=torch $(BACKENDS); \
	else echo 'Skipped: no $(TORCH) was found. Name a CPU build by TORCH and TORCH_OPTIONS (see the Makefile).'; \
	  test -z "$${CI:-}"; fi
	$(OLDEST_KERAS) $(BACKENDS)

fuzz: .venv/backends ## search for counterexamples at random, long, on every backend
	HYPOTHESIS_PROFILE=fuzz $(BIN)/pytest tests -n 2 --dist loadscope -m hypothesis
	for backend in jax torch; do \
	  HYPOTHESIS_PROFILE=fuzz KERAS_BACKEND=$$backend $(BACKENDS) -m 'hypothesis and backends'; done

portability: .venv/ready ## run notebooks and tests of lib as other machines would: make portability ONLY=SSE4
	$(BIN)/python -m lib.press.portability $(if $(ONLY),--only '$(ONLY)')

coverage: .venv/backends ## measure how much of lib the unit tests reach, all backends together
	rm -f .coverage
	$(BIN)/pytest tests -q --cov --cov-append --cov-report= -m 'not browser'
	for backend in jax torch; do \
	  KERAS_BACKEND=$$backend $(BIN)/pytest tests -q --cov --cov-append --cov-report= -m backends; done
	$(BIN)/coverage report --show-missing --skip-covered

speed: .venv/ready ## measure how fast each built page opens on a slow line
	@$(BIN)/python -m lib.press.site
	@$(BIN)/python -m lib.press.speed

lighthouse: .venv/page ## let Lighthouse judge every built page; needs Node.js and Chromium
	@$(BIN)/python -m lib.press.site
	@$(BIN)/python -m lib.press.lighthouse

colab: .venv/ready ## run every chapter as Colab would: make colab RELEASE=2026-03 BACKEND=jax ONLY=book/05-memm.ipynb
	$(BIN)/python -m lib.press.colab $(if $(RELEASE),--release '$(RELEASE)') $(if $(BACKEND),--backend '$(BACKEND)') \
	  $(if $(COLAB_PYTHON),--python '$(COLAB_PYTHON)') --options='$(TORCH_OPTIONS)' $(ONLY)

newest: ## install the newest release of every dependency into _build/newest, and run all tests there
	$(PYTHON) -m venv --clear _build/newest
	sed -E '/^-r|^#/d; s/[=]=.*//; s/^jupyter-book$$/jupyter-book<2/' requirements-book.txt requirements.txt > _build/newest.txt
	_build/newest/bin/pip install -q -r _build/newest.txt
	_build/newest/bin/pip list --format=freeze
	_build/newest/bin/python -m lib.press.site
	_build/newest/bin/pytest --nbval -n 2 --dist loadscope

links: .venv/links book ## try every link of the built site, of the README and of the changelog
	@$(BIN)/python -m lib.press.links

lab: .venv/ready ## open JupyterLab at the chapters, or at one: make lab AT=book/01-angles.ipynb
	$(BIN)/python -m lib.press.lab $(if $(AT),--LabApp.default_url=/lab/tree/$(AT) --ServerApp.use_redirect_file=False)

student: .venv/page ## write the notebooks without solutions, for instructors, into _build/student
	@$(BIN)/python -m lib.press.student

pdf: .venv/ready ## print the whole book as one PDF (needs Chromium)
	@$(BIN)/python -m lib.press.site
	@$(BIN)/python -m lib.press.pdf

picture: .venv/ready ## take the picture of chapter 1 in README.md anew (needs Chromium)
	@$(BIN)/python -m lib.press.site
	@$(BIN)/python -m lib.press.picture

messages: .venv/page ## extract what a translator translates, into _build/messages
	@$(BIN)/python -m lib.press.site
	@$(BIN)/python -m lib.press.messages

execute: .venv/ready ## re-run the notebooks and store their outputs and claims
	$(BIN)/python -m lib.press.execute

bench: .venv/backends ## measure lib against its peers
	$(BIN)/pip install -q --no-deps -r requirements-bench.txt
	$(BIN)/pytest tests/bench -o python_files='bench_*.py' --benchmark-only --benchmark-columns=min,median,rounds

gpu: .venv/ready ## record on the accelerator at hand, within minutes: make gpu BUDGET=15
	$(BIN)/python -m lib.press.gpu $(if $(BUDGET),--budget $(BUDGET)) $(if $(ONLY),--only '$(ONLY)')

release: .venv/ready ## check, stamp and tag a version, and push nothing: make release VERSION=1.0.0
	@$(BIN)/python -m lib.press.release $(VERSION)

address: .venv/ready ## stamp the public address: make address URL=https://github.com/org/repo
	@$(BIN)/python -m lib.press.address $(URL)

lock: ## pin the dependencies again, with hashes: the page's in the versions of the whole
	$(PYTHON) -m venv _build/lock
	_build/lock/bin/pip install -q uv
	$(COMPILE) requirements.txt -o requirements.lock
	$(COMPILE) -c requirements.lock requirements-book.txt -o requirements-book.lock

clean: ## remove what was built, but no data and no recorded run
	rm -rf _build .venv .hypothesis .ruff_cache .pytest_cache .coverage*
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# The installer makes these stamps last, so an interrupted installation is taken up again.
.venv/page: requirements-book.lock
	@$(PYTHON) lib/press/install.py page

.venv/ready: requirements-book.lock requirements.lock
	@$(PYTHON) lib/press/install.py

.venv/links: .venv/page requirements-links.txt
	$(BIN)/pip install -q -r requirements-links.txt
	@touch $@

# JAX, torch and the oldest Keras, in the environment of the book.
.venv/backends: .venv/ready requirements-backends.txt
	$(BIN)/pip install -q -r requirements-backends.txt
	$(BIN)/pip install -q $(TORCH_OPTIONS) '$(TORCH)' || true
	$(BIN)/pip install -q --no-deps --upgrade --target .venv/keras-minimum keras==$(KERAS_MINIMUM)
	@$(HAS_TORCH) && touch $@ || true
