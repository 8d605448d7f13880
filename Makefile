# `make help` lists the commands. Everything is installed into .venv; data is in .data.
.DEFAULT_GOAL := help
.PHONY: help run quick test lint lock bench faults security screenshots docs translations clean
MAKEFLAGS += --no-print-directory

VENV := .venv
PYTHON := $(VENV)/bin/python
INSTALL := $(PYTHON) .ci/install.py
# There while .venv is being filled. If that was interrupted, or if the system has another Python
# since, .venv is made again.
UNFINISHED := $(VENV)/.unfinished
ifneq ($(filter-out help clean,$(MAKECMDGOALS)),)
$(shell [ ! -e $(UNFINISHED) ] && $(PYTHON) -c "import pip" 2>/dev/null || rm -rf $(VENV))
endif
# The port of `make run`; the sandbox uses the next two.
PORT ?= 8000
# 1: `make run` also starts the sandbox receiver and OAuth provider. 0: it does not.
SANDBOX ?= 1
# mypy's plugin loads the settings, which need keys; nothing is stored with them.
NO_KEYS := SECRET_KEY=lint FIELD_ENCRYPTION_KEY=bGludC1saW50LWxpbnQtbGludC1saW50LWxpbnQtMzI=
# Otherwise each pytest worker, and each process that a test starts, would compile all files again.
unexport PYTHONDONTWRITEBYTECODE
# Two workers for each database: many tests wait for a browser, a worker or a fault.
TEST_WORKERS := 4
# More arguments for pytest: make test ARGS="-k oauth".
ARGS ?=

help: ## List the commands
	@awk -F ':.*## ' '/^[a-z]+:.*## / {print $$1 "|" $$2}' $(MAKEFILE_LIST) | \
	while IFS='|' read -r verb text; do \
	  case $$verb in bench|faults|security|screenshots) \
	    [ -e tests/$$verb ] || [ -e tests/$$verb.py ] || continue;; esac; \
	  printf '  make %-12s %s\n' "$$verb" "$$text"; \
	done

run: $(VENV)/.run ## Start the product on http://127.0.0.1:8000 (PORT=9000, SANDBOX=0)
	@exec $(PYTHON) manage.py run --port $(PORT) $(if $(filter 0 no off,$(SANDBOX)),--no-sandbox,--sandbox)

quick: $(VENV)/.dev ## Run the tests without a browser or other processes, on SQLite, in a minute or two (ARGS="-k oauth")
	@TEST_DATABASES=sqlite exec $(PYTHON) -m pytest --quick -n 2 $(ARGS)

test: $(VENV)/.dev ## Run every test, on SQLite and PostgreSQL (ARGS="-k oauth")
	@$(PYTHON) -m tests.programs
	@TEST_DATABASES=sqlite,postgres exec $(PYTHON) -m pytest -n $(TEST_WORKERS) --dist each $(ARGS)

lint: $(VENV)/.dev ## Check style, format and types
	@$(PYTHON) -m ruff check .
	@$(PYTHON) -m ruff format --check .
	@$(VENV)/bin/djangofmt --check --quiet templates tests/sandbox
	@$(NO_KEYS) $(PYTHON) -m mypy

bench: $(VENV)/.dev ## Measure the performance, compared with one Celery task per delivery
	@exec $(PYTHON) -m tests.bench $(ARGS)

faults: $(VENV)/.dev ## Break databases, brokers, workers and receivers, and count losses and duplicates
	@exec $(PYTHON) -m tests.faults $(ARGS)

security: $(VENV)/.dev ## Attack the guard, secrets, pages and every parser, and print figures (FUZZ_CASES=20000)
	@exec $(PYTHON) -m tests.security $(ARGS)

screenshots: $(VENV)/.dev ## Take a picture of every screen, light and dark
	@exec $(PYTHON) -m tests.screenshots $(ARGS)

docs: $(VENV)/.dev ## Write the generated pages in docs/: events, third-party packages
	@exec $(PYTHON) -m tests.docs

translations: $(VENV)/.dev ## Update the Ukrainian translation file with new texts (ARGS=--missing)
	@exec $(PYTHON) -m tests.translations $(ARGS)

COMPILE = $(PYTHON) -m uv pip compile --quiet --universal --python-version 3.11 --generate-hashes \
  --no-annotate --no-emit-index-url --no-header $(LOCK) -c requirements.txt
lock: $(PYTHON) ## Compile the pinned requirements from pyproject.toml (LOCK=--upgrade)
	@$(PYTHON) -m pip --disable-pip-version-check install --quiet uv==0.13.9
	@$(COMPILE) pyproject.toml -o requirements.txt
	@$(COMPILE) --group sandbox -o $(VENV)/sandbox.txt
	@$(COMPILE) --group tests -c $(VENV)/sandbox.txt -o $(VENV)/tests.txt \
	  $$(sed -n 's/^\([A-Za-z0-9._-]*\)==.*/--no-emit-package \1/p' $(VENV)/sandbox.txt)
	@{ echo "# The sandbox"; cat $(VENV)/sandbox.txt; echo "# The tests"; cat $(VENV)/tests.txt; } \
	  > requirements-dev.txt

clean: ## Remove the virtual environment and caches; data stays
	@rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache .hypothesis staticfiles build

# The newest installed Python that is new enough and can create virtual environments.
$(PYTHON):
	@for candidate in python3.13 python3.12 python3.11 python3; do \
	  if $$candidate -c 'import ensurepip, sys, venv; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then \
	    echo "Making $(VENV) with $$($$candidate --version) ..."; \
	    mkdir $(VENV); touch $(UNFINISHED); $$candidate -m venv $(VENV) && exit 0; \
	    rm -rf $(VENV); exit 1; \
	  fi; \
	done; \
	echo "Python 3.11 or newer with its venv module is needed (Debian: apt-get install python3-venv)." >&2; \
	exit 1

$(VENV)/.run: requirements.txt requirements-dev.txt | $(PYTHON)
	@echo "Installing what the product needs (once) ..."
	@sed '/^# The tests/,$$d' requirements-dev.txt > $(VENV)/sandbox.txt
	@touch $(UNFINISHED); $(INSTALL) requirements.txt $(VENV)/sandbox.txt && touch $@; status=$$?; rm $(UNFINISHED); exit $$status

$(VENV)/.dev: requirements-dev.txt $(VENV)/.run
	@echo "Installing what the tests need (once) ..."
	@touch $(UNFINISHED); $(INSTALL) requirements-dev.txt && touch $@; status=$$?; rm $(UNFINISHED); exit $$status
