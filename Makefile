# Verbs over `python -m …`, run from the repository root. Everything lands in this folder: .venv, .bentoml, runs.
FITS = import sys; sys.exit(not (3, 11) <= sys.version_info[:2] < (3, 13))
PYTHON ?= $(shell for one in python3.11 python3.12 python3; do $$one -c '$(FITS)' 2> /dev/null && echo $$one && break; done)
LECTERN_PORT ?= 3000
MONITOR_PORT ?= 9090
export BENTOML_HOME ?= $(CURDIR)/.bentoml
export PYTHONPATH := $(CURDIR)

SERVE = .venv-serve/bin/python
DEV = .venv/bin/python
# What says that an environment is whole. The interpreter cannot: it is a link, to one file for every checkout.
SERVE_READY = .venv-serve/.installed
DEV_READY = .venv/.installed
LOCK = $(DEV) -m uv pip compile pyproject.toml --quiet --universal --python-version 3.11 --generate-hashes \
	--constraint constraints.txt --no-annotate --custom-compile-command "make lock"

# What each verb takes besides the settings, which go to all of them through the environment.
TAKES_setup := ENVIRONMENT
TAKES_test := PROCESSES
TAKES_train := MODEL
TAKES_ladder := FAMILY QUICK
TAKES_export := MODEL
TAKES_score := MODEL IN OUT WORKERS OPTIONS
TAKES_monitor := KEY_FILE MONITOR_PORT
TAKES_loadtest := PROFILE RATE MODELS OPTIONS
TAKES_capacity := MODEL OPTIONS
TAKES_mlperf := MODEL
TAKES_benchmark := SHORT CHECK PEERS
TAKES_torture := QUICK ONLY
TAKEN := $(foreach goal,$(MAKECMDGOALS),$(TAKES_$(goal)))
SETTINGS := PYTHON SHELL LECTERN_% BENTOML_% PIP_% PYTEST_%
GIVEN := $(foreach name,$(.VARIABLES),$(if $(filter command,$(origin $(name))),$(name)))
STRANGE := $(firstword $(filter-out $(TAKEN) $(SETTINGS),$(GIVEN)))
NEAREST = import difflib, sys; said, known = sys.argv[1].upper(), sys.argv[2:]; \
	likely = [one for one in known if one.endswith("_" + said)] or difflib.get_close_matches(said, known, 1); \
	print(*[f"did you mean {one}?" for one in likely])
ifneq ($(STRANGE),)
$(error make $(MAKECMDGOALS) takes no $(STRANGE): $(or $(shell "$(PYTHON)" -c '$(NEAREST)' '$(STRANGE)' $(TAKEN) PYTHON LECTERN_PORT),it takes $(or $(TAKEN),only settings (LECTERN_*))))
endif
# A value reaches its command through the environment, as it was typed: blanks, brackets and dollars stay what they are;
# only ~/ at its beginning, which not every shell expands there, is the home folder.
from_home = $(subst <start>,,$(subst <start>~/,$(HOME)/,<start>$(1)))
$(foreach name,$(TAKEN),$(if $(filter-out undefined,$(origin $(name))),$(eval override $(name) := $$(call from_home,$$(value $(name))))$(eval export $(name))))

# $(call need,NAME,example): stop with a sentence when a variable is missing.
need = $(if $($(1)),,$(error $(1) is missing: $(2)))

VERBS := $(shell sed -n 's/^\([a-z0-9]*\):.*\#\#.*/\1/p' Makefile)
.PHONY: $(VERBS)

help: ## Show this list
	@grep -E '^[a-z0-9]+:.*##' Makefile | sed 's/:.*##/\t/'

# A whole environment is brought up to date in place; any other, as an interrupted installation leaves it, begins anew.
# The stamp goes before anything changes and comes back when all of it is there.
environment = { [ -f $@ ] || { "$(or $(PYTHON),$(error Python 3.11 or 3.12 is needed: make PYTHON=/path/to/python))" -c '$(FITS)' \
	|| { echo "Python 3.11 or 3.12 is needed, and PYTHON is $$("$(PYTHON)" --version 2>&1)" >&2; exit 1; }; \
	"$(PYTHON)" -m venv --clear $(@D); }; } && rm -f $@
$(shell for one in .venv .venv-serve; do [ -x $$one/bin/python ] || rm -f $$one/.installed; done)

# What serves is installed from a lock: these bytes or nothing, and no package runs code of its own to be built.
$(SERVE_READY): requirements/serve.txt
	@$(environment)
	$(SERVE) -m pip install --quiet --progress-bar on --require-hashes --only-binary :all: --requirement $<
	@touch $@

$(DEV_READY): pyproject.toml constraints.txt
	@$(environment)
	$(DEV) -m pip install --quiet --upgrade "pip>=25.1"
	$(DEV) -m pip install --quiet --progress-bar on --constraint constraints.txt --group dev
	@touch $@

ENVIRONMENTS = $(or $(if $(ENVIRONMENT),$(filter serve dev,$(ENVIRONMENT)),serve dev),$(error ENVIRONMENT must be serve or dev, got $(ENVIRONMENT)))
setup: $(if $(filter setup,$(MAKECMDGOALS)),$(patsubst dev,$(DEV_READY),$(patsubst serve,$(SERVE_READY),$(ENVIRONMENTS)))) ## Only install what serves and what tests, trains and measures (ENVIRONMENT=serve or dev: only that)

serve: $(SERVE_READY) ## Serve every shipped model on http://127.0.0.1:3000
	@$(SERVE) -m export install
	@LECTERN_LOG=$${LECTERN_LOG:-text} exec $(SERVE) -m service

# The page is announced by a process of its own, which ends when it has done so, or with the service.
demo: $(SERVE_READY) ## Serve as make serve does, with a page to try every model with, and open it
	@$(SERVE) -m export install
	@$(SERVE) -m service.demo $$$$ & LECTERN_DEMO=true LECTERN_LOG=$${LECTERN_LOG:-text} exec $(SERVE) -m service

install: $(SERVE_READY) ## Put the certified artifacts into the model store
	$(SERVE) -m export install

test: $(DEV_READY) ## Run the tests on every core, or PROCESSES=2 (make e2e: those that start real servers)
	$(DEV) -m pytest --numprocesses $(if $(PROCESSES),"$$PROCESSES",auto) --maxprocesses 8 --dist worksteal

e2e: $(DEV_READY) ## Run the tests that start real servers
	$(DEV) -m pytest -m "e2e and not slow"

browser: ## Install Debian's Chromium for the tests of the page (as root)
	@command -v chromium > /dev/null || { apt-get update --quiet=2 && apt-get install --yes --quiet=2 --no-install-recommends chromium; }

data: $(DEV_READY) ## Download the public datasets, for training and for the tests that need them
	$(DEV) -m models.train.download

train: $(DEV_READY) ## Train: make train MODEL=image (own data: python -m models.train --help)
	@:$(call need,MODEL,make train MODEL=image)
	$(DEV) -m models.train --model "$$MODEL"

ladder: $(DEV_READY) ## Train every rung of a family: make ladder FAMILY=tagging (QUICK=1: does each train?)
	@:$(call need,FAMILY,make ladder FAMILY=tagging)
	$(DEV) -m models.train.experiments "$$FAMILY" $(if $(QUICK),--quick)

export: $(DEV_READY) ## Certify a trained model: make export MODEL=image
	@:$(call need,MODEL,make export MODEL=image)
	$(DEV) -m export model "$$MODEL"

score: $(SERVE_READY) ## Score a file: make score MODEL=tagging IN=corpus.jsonl OUT=tags.parquet (WORKERS=2 OPTIONS="--max-errors 9")
	@:$(call need,MODEL,make score MODEL=tagging IN=corpus.jsonl OUT=tags.parquet)
	@:$(call need,IN,make score MODEL=tagging IN=corpus.jsonl OUT=tags.parquet)
	@:$(call need,OUT,make score MODEL=tagging IN=corpus.jsonl OUT=tags.parquet)
	@$(SERVE) -m export install > /dev/null
	@exec $(SERVE) -m service.scoring run $(if $(WORKERS),--workers "$$WORKERS") $(OPTIONS) -- "$$MODEL" "$$IN" "$$OUT"

ray: $(SERVE_READY) $(DEV_READY) ## Install Ray beside the rest, for make score OPTIONS="--engine ray" and its tests
	$(SERVE) -m pip install --quiet --progress-bar on --constraint constraints.txt ray
	$(DEV) -m pip install --quiet --progress-bar on --constraint constraints.txt --group ray

monitor: $(SERVE_READY) ## Watch the running service with a real Prometheus, on http://127.0.0.1:9090 (KEY_FILE=FILE where it asks for keys)
	@exec $(SERVE) -m monitoring --url http://127.0.0.1:$(LECTERN_PORT) --port $(MONITOR_PORT) $(if $(KEY_FILE),--key-file "$$KEY_FILE")

prometheus: $(DEV_READY) ## Fetch Debian's Prometheus into .prometheus, for make monitor and the tests of its rules
	@$(DEV) -m monitoring.debian

dashboards: $(DEV_READY) ## Write monitoring/dashboards anew
	$(DEV) -m monitoring.dashboards

loadtest: $(DEV_READY) ## Load a running service: make loadtest (PROFILE=step RATE=200 MODELS=viewcount=8,image=2 OPTIONS="--against earlier.json")
	@$(DEV) -m loadtests run --host http://127.0.0.1:$(LECTERN_PORT) $(if $(PROFILE),--profile "$$PROFILE") \
		$(if $(RATE),--rate "$$RATE") $(if $(MODELS),--models "$$MODELS") $(OPTIONS)

capacity: $(DEV_READY) ## Find the highest rate at which a running service keeps its objective: make capacity MODEL=image (OPTIONS="--p99-ms 20")
	@:$(call need,MODEL,make capacity MODEL=image)
	@$(DEV) -m loadtests capacity --host http://127.0.0.1:$(LECTERN_PORT) --model "$$MODEL" $(OPTIONS)

mlperf: $(DEV_READY) ## The MLPerf scenarios against a running service, some minutes each: make mlperf MODEL=image
	$(DEV) -m loadtests mlperf --host http://127.0.0.1:$(LECTERN_PORT) $(if $(MODEL),--model "$$MODEL")

benchmark: $(DEV_READY) ## Serve the same models by every peer and compare (SHORT=1: only FastAPI, against the last floor; CHECK=1: ask each once; PEERS=mosec,ray)
	$(DEV) -m benchmarks.serving $(if $(SHORT),--short) $(if $(CHECK),--check) $(if $(PEERS),--peers "$$PEERS")

torture: $(DEV_READY) ## Overload, kill and attack real servers (QUICK=1: a tenth of it; ONLY=overload,soak)
	$(DEV) -m chaos.service $(if $(QUICK),--quick) $(if $(ONLY),--only "$$ONLY")

lock: $(DEV_READY) ## Renew the locks of what serves, requirements/*.txt, from pyproject.toml and constraints.txt
	$(LOCK) --group serve --output-file requirements/serve.txt
	$(LOCK) --group serve --group cuda --output-file requirements/cuda.txt

sbom: $(DEV_READY) ## Write dist/sbom.cdx.json: every package that serves, the page's library, every shipped model
	$(DEV) -m export sbom dist/sbom.cdx.json

audit: $(DEV_READY) ## Ask the advisory database about every locked package
	@$(DEV) .ci/audit.py requirements/cuda.txt

lint: $(DEV_READY) ## Style, types and the arrows between rooms
	$(DEV) -m ruff check .
	$(DEV) -m ruff format --check .
	$(DEV) -m mypy
	.venv/bin/lint-imports
	git ls-files -z | xargs -0 .venv/bin/codespell

clean: ## Remove what the other verbs made, but trained runs
	rm -rf .venv .venv-serve .bentoml .prometheus .mypy_cache .ruff_cache .pytest_cache .hypothesis
