# Everything runs in .venv, made by plain venv and pip. `make` alone lists the targets.

VENV := .venv
BIN := $(VENV)/bin
# The first interpreter that is new enough, sooner one that offline speech has a build for than 3.14.
# Override it with: make PYTHON=/path/to/python
IS_NEW := -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, int(sys.argv[1])))'
PYTHON ?= $(shell for p in python3 python3.13 python3.12 python3.11; do \
	$$p $(IS_NEW) 14 2>/dev/null && echo $$p && exit; done; \
	for p in python3 python3.14; do $$p $(IS_NEW) 99 2>/dev/null && echo $$p && exit; done)
# A second interpreter for `make test-313`, where there is one.
PYTHON313 ?= $(shell for p in python3.13 $(wildcard $(HOME)/.pyenv/versions/3.13*/bin/python3.13); do \
	$$p -c '' 2>/dev/null && echo $$p && break; done)
VENV313 := .venv-313
SOURCES := app audio trunkline tests docs examples hatch_build.py trunkline_command.py
PIP := -m pip install --quiet --disable-pip-version-check
ARGS ?=
# Most tests wait for sockets more than they compute: on two cores, eight workers keep both busy.
# `WORKERS=0` for none.
WORKERS ?= 8
PYTEST := -m pytest --dist worksteal --numprocesses $(WORKERS)
# Workers and the processes that tests start would each compile everything anew.
unexport PYTHONDONTWRITEBYTECODE

# Installs into the environment $(1) with the extras $(2). On a terminal, one line tells how far pip
# is; its errors are printed whole, and its exit code is kept.
define install
@echo "Installing Trunkline[$(2)] into $(1) ..."
@{ $(1)/bin/python -m pip install --disable-pip-version-check --progress-bar off --editable '.[$(2)]'; \
	echo "ended $$?"; } | while read -r step what; do \
	case "$$step $$what" in \
	ended*) test ! -t 1 || printf '\r\033[K'; exit $$what;; \
	Collecting*) n=$$((n + 1)); what="$$n $${what%%[<>=~!;( ]*}";; \
	"Installing collected"*) step=Unpacking; what="$${n:+$$n }packages";; \
	*) continue;; esac; \
	test ! -t 1 || printf '\r\033[K  %.70s' "$$step $$what"; done
@$(1)/bin/python -c 'import pocketsphinx' 2>/dev/null || echo "Without the offline engine's speech: \
pocketsphinx has no build for this Python. The server needs OPENAI_API_KEY here; for the offline demo, \
run: make clean; make run PYTHON=python3.13"
endef
, := ,

.DEFAULT_GOAL := help
.PHONY: help install run demo demo-agents demo-pipeline demo-outbound test test-313 test-busy test-fast stress check cover bench soak lint types fmt docs lock check-install image-check check-extras clean

help: ## List these targets
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / { printf "  %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

$(BIN)/python:
	@test -n "$(PYTHON)" || { echo "Trunkline needs Python 3.11 or newer." >&2; exit 1; }
	@$(PYTHON) -m venv $(VENV) || { rm -rf $(VENV); \
		echo "On Debian and Ubuntu, install venv first: apt install python3-venv" >&2; exit 1; }

# The stamps make the second run quick; a changed pyproject.toml installs again.
$(VENV)/.installed: pyproject.toml | $(BIN)/python
	$(call install,$(VENV),offline)
	@touch $@

$(VENV)/.installed-test: pyproject.toml | $(BIN)/python
	$(call install,$(VENV),offline$(,)test)
	@touch $@ $(VENV)/.installed

$(VENV313)/.installed-test: pyproject.toml
	@test -n "$(PYTHON313)" || { echo "No Python 3.13 was found." >&2; exit 1; }
	@test -x $(VENV313)/bin/python || $(PYTHON313) -m venv $(VENV313)
	$(call install,$(VENV313),offline$(,)test)
	@touch $@

install: $(VENV)/.installed ## Install into .venv, with the offline engine

run: $(VENV)/.installed ## Start the server (ARGS="--port 9000" for options)
	@$(BIN)/trunkline serve $(ARGS)

demo: $(VENV)/.installed ## Call the running server as a simulated caller, in a second terminal
	@$(BIN)/trunkline dial $(ARGS)

demo-agents: $(VENV)/.installed ## Show agents that hand over, book by HTTP, ask for keys and transfer
	@$(BIN)/python -m tests.demo $(ARGS)

demo-pipeline: $(VENV)/.installed ## Show a call that a chain of local servers answers, with the time of each stage
	@$(BIN)/python -m tests.demo.pipeline

demo-outbound: $(VENV)/.installed-test ## Show calls that are placed: to people, mailboxes, a phone that screens, a menu
	@$(BIN)/python -m tests.demo.outbound

# Clients that others wrote, beside the server's packages, whose versions they do not share. Tests of
# those that cannot be fetched are skipped; `rm -r .venv/clients` has them fetched again.
$(VENV)/clients/.fetched: | $(BIN)/python
	@mkdir -p $(@D)
	-@$(BIN)/python $(PIP) --no-deps --target $(@D) openai-agents==0.24.0 griffelib==2.4.1
	-@test -z "$$(command -v npm)" || npm install --prefix $(@D) --ignore-scripts --no-audit --no-fund \
		--loglevel error openai@6.49.0 @openai/agents-realtime@0.20.0 ws@8 >/dev/null
	@touch $@

test: $(VENV)/.installed-test $(VENV)/clients/.fetched ## Run all tests (ARGS="-k marks" for some)
	@$(BIN)/python $(PYTEST) $(ARGS)

test-313: $(VENV313)/.installed-test ## Run all tests on Python 3.13, where it is installed
	@$(VENV313)/bin/python $(PYTEST) -p no:cacheprovider $(ARGS)

# The loops end with this shell, whatever ends it.
test-busy: $(VENV)/.installed-test ## Run all tests while four busy loops run beside them
	@for loop in 1 2 3 4; do (while kill -0 $$$$; do :; done 2>/dev/null) & loops="$$loops $$!"; done; \
	trap "kill $$loops" EXIT; $(BIN)/python $(PYTEST) $(ARGS)

# Some tests prove by their number: of servers killed, of calls, of values that are tried.
stress: $(VENV)/.installed-test ## Run tests that repeat something, with all repetitions
	@STRESS=1 $(BIN)/python $(PYTEST) -m stress $(ARGS)

check: $(VENV)/.installed-test ## Format check, lint, types, unit and protocol tests
	@$(MAKE) --no-print-directory --jobs 2 lint types test-fast

test-fast: $(VENV)/.installed-test ## Run the unit and protocol tests
	@$(BIN)/python -m pytest --dist worksteal --numprocesses 4 tests/unit tests/protocol $(ARGS)

# docs/architecture.md tells which modules are meant to be covered whole.
cover: $(VENV)/.installed-test ## Run all tests and print which branches they reach
	@$(BIN)/python $(PYTEST) --cov --cov-report=term:skip-covered $(ARGS)

bench: $(VENV)/.installed-test ## Measure; prints figures and writes JSON
	@$(BIN)/python -m tests.bench $(ARGS)

soak: $(VENV)/.installed-test ## Place 10,000 mixed calls, then floods; count what is left (ARGS="--calls 500")
	@$(BIN)/python -m tests.chaos.soak $(ARGS)

lint: $(VENV)/.installed-test ## Check format and lint rules
	@$(BIN)/ruff format --check $(SOURCES)
	@$(BIN)/ruff check $(SOURCES)

types: $(VENV)/.installed-test ## Check types
	@$(BIN)/mypy

fmt: $(VENV)/.installed-test ## Format, and mend what the linter can
	@$(BIN)/ruff format $(SOURCES)
	@$(BIN)/ruff check --fix $(SOURCES)

docs: $(VENV)/.installed ## Refresh the generated parts of docs/
	@$(BIN)/python docs/generate.py

LOCK := deploy/requirements.lock
lock: ## Resolve the versions that the image is built from anew
	@test -x .venv-lock/bin/uv || { $(PYTHON) -m venv .venv-lock && .venv-lock/bin/python $(PIP) uv; }
	@echo 'hatchling' | .venv-lock/bin/uv pip compile pyproject.toml - --extra offline --extra mcp --extra postgres --extra redis \
		--upgrade --universal --python-version 3.11 --generate-hashes --no-annotate --quiet \
		--no-emit-index-url --custom-compile-command 'make lock' --output-file $(LOCK)

check-install: ## Install in a clean folder on each Python found, without a compiler
	@.ci/check_install

image-check: ## Build the image with podman, call it, and stop it in mid-call
	@.ci/image_check

check-extras: $(VENV)/.installed-test ## Install each extra alone from the index, and import it
	@$(BIN)/python .ci/check_extras.py

clean: ## Remove environments, caches and builds; var/ stays
	@rm -rf $(VENV) $(VENV313) .venv-lock build dist .mypy_cache .pytest_cache .ruff_cache .hypothesis .coverage
	@find $(SOURCES) -name __pycache__ -type d -prune -exec rm -rf {} +
