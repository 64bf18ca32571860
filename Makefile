# Verbs over `python -m …`, run from the repository root. Everything lands in this folder: .venv, .bentoml, runs.
PYTHON ?= python3.11
LECTERN_PORT ?= 3000
MONITOR_PORT ?= 9090
export BENTOML_HOME ?= $(CURDIR)/.bentoml
export BENTOML_DO_NOT_TRACK = True
export PYTHONPATH := $(CURDIR)

SERVE = .venv-serve/bin/python
DEV = .venv/bin/python
SETTINGS = pyproject.toml constraints.txt
LOCK = $(DEV) -m uv pip compile pyproject.toml --quiet --universal --python-version 3.11 --generate-hashes \
	--constraint constraints.txt --no-annotate --custom-compile-command "make lock"

# $(call need,NAME,example): stop with a sentence when a variable is missing.
need = $(if $($(1)),,$(error $(1) is missing: $(2)))

.PHONY: help serve demo test e2e browser check train ladder export install score ray monitor prometheus dashboards loadtest capacity mlperf benchmark torture lock sbom audit lint clean

help: ## Show this list
	@grep -E '^[a-z0-9]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*##/\t/'

# What serves is installed from a lock: these bytes or nothing, and no package runs code of its own to be built.
$(SERVE): requirements/serve.txt
	$(PYTHON) -m venv .venv-serve
	$(SERVE) -m pip install --quiet --progress-bar on --require-hashes --only-binary :all: --requirement $<
	@touch $@

$(DEV): $(SETTINGS)
	$(PYTHON) -m venv .venv
	$(DEV) -m pip install --quiet --upgrade "pip>=25.1"
	$(DEV) -m pip install --quiet --progress-bar on --constraint constraints.txt --group dev
	@touch $@

serve: $(SERVE) ## Serve every shipped model on http://127.0.0.1:3000
	@$(SERVE) -m export install
	@LECTERN_LOG=$${LECTERN_LOG:-text} exec $(SERVE) -m service

# The page is announced by a process of its own, which ends when it has done so, or with the service.
demo: $(SERVE) ## Serve as make serve does, with a page to try every model with, and open it
	@$(SERVE) -m export install
	@$(SERVE) -m service.demo $$$$ & LECTERN_DEMO=true LECTERN_LOG=$${LECTERN_LOG:-text} exec $(SERVE) -m service

install: $(SERVE) ## Put the certified artifacts into the model store
	$(SERVE) -m export install

test: $(DEV) ## Run the tests (make e2e: those that start real servers)
	$(DEV) -m pytest

e2e: $(DEV) ## Run the tests that start real servers
	$(DEV) -m pytest -m "e2e and not slow"

browser: ## Install Debian's Chromium for the tests of the page (as root)
	@command -v chromium > /dev/null || { apt-get update --quiet=2 && apt-get install --yes --quiet=2 --no-install-recommends chromium; }

train: $(DEV) ## Train: make train MODEL=image (own data: python -m models.train --help)
	@:$(call need,MODEL,make train MODEL=image)
	$(DEV) -m models.train --model $(MODEL)

ladder: $(DEV) ## Train every rung of a family: make ladder FAMILY=tagging (QUICK=1: does each train?)
	@:$(call need,FAMILY,make ladder FAMILY=tagging)
	$(DEV) -m models.ladder $(FAMILY) $(if $(QUICK),--quick)

export: $(DEV) ## Certify a trained model: make export MODEL=image
	@:$(call need,MODEL,make export MODEL=image)
	$(DEV) -m export model $(MODEL)

score: $(SERVE) ## Score a file: make score MODEL=tagging IN=corpus.jsonl OUT=tags.parquet (WORKERS=2 OPTIONS="--max-errors 9")
	@:$(call need,MODEL,make score MODEL=tagging IN=corpus.jsonl OUT=tags.parquet)
	@:$(call need,IN,make score MODEL=tagging IN=corpus.jsonl OUT=tags.parquet)
	@:$(call need,OUT,make score MODEL=tagging IN=corpus.jsonl OUT=tags.parquet)
	@$(SERVE) -m export install > /dev/null
	@exec $(SERVE) -m service.scoring run $(MODEL) $(IN) $(OUT) $(if $(WORKERS),--workers $(WORKERS)) $(OPTIONS)

ray: $(DEV) ## Install Ray beside the rest, for the tests of --engine ray
	$(DEV) -m pip install --quiet --progress-bar on --constraint constraints.txt --group ray

monitor: $(SERVE) ## Watch the running service with a real Prometheus, on http://127.0.0.1:9090 (KEY_FILE=FILE where it asks for keys)
	@exec $(SERVE) -m benchmarks.monitor --url http://127.0.0.1:$(LECTERN_PORT) --port $(MONITOR_PORT) $(if $(KEY_FILE),--key-file $(KEY_FILE))

prometheus: $(DEV) ## Fetch Debian's Prometheus into .prometheus, for make monitor and the tests of its rules
	@$(DEV) -m benchmarks.monitor.debian

dashboards: $(DEV) ## Write monitoring/dashboards anew
	$(DEV) -m benchmarks.monitor.dashboards

loadtest: $(DEV) ## Load a running service: make loadtest (PROFILE=step RATE=200 MODELS=viewcount=8,image=2 OPTIONS="--against earlier.json")
	@$(DEV) -m loadtests run --host http://127.0.0.1:$(LECTERN_PORT) $(if $(PROFILE),--profile $(PROFILE)) \
		$(if $(RATE),--rate $(RATE)) $(if $(MODELS),--models $(MODELS)) $(OPTIONS)

capacity: $(DEV) ## Find the highest rate at which a running service keeps its objective: make capacity MODEL=image (OPTIONS="--p99-ms 20")
	@:$(call need,MODEL,make capacity MODEL=image)
	@$(DEV) -m loadtests capacity --host http://127.0.0.1:$(LECTERN_PORT) --model $(MODEL) $(OPTIONS)

mlperf: $(DEV) ## The MLPerf scenarios against a running service, some minutes each: make mlperf MODEL=image
	$(DEV) -m loadtests mlperf --host http://127.0.0.1:$(LECTERN_PORT) $(if $(MODEL),--model $(MODEL))

benchmark: $(DEV) ## Serve the same models by every peer and compare (SHORT=1: only FastAPI, against the last floor)
	$(DEV) -m benchmarks.serving $(if $(SHORT),--short)

torture: $(DEV) ## Overload, kill and attack real servers (QUICK=1: a tenth of it; ONLY=overload,soak)
	$(DEV) -m benchmarks.torture $(if $(QUICK),--quick) $(if $(ONLY),--only $(ONLY))

lock: $(DEV) ## Renew the locks of what serves, requirements/*.txt, from pyproject.toml and constraints.txt
	$(LOCK) --group serve --output-file requirements/serve.txt
	$(LOCK) --group serve --group cuda --output-file requirements/cuda.txt

sbom: $(DEV) ## Write dist/sbom.cdx.json: every package that serves, the page's library, every shipped model
	$(DEV) -m export sbom dist/sbom.cdx.json

audit: $(DEV) ## Ask the advisory database about every locked package
	@$(DEV) .ci/audit.py requirements/cuda.txt

lint: $(DEV) ## Style, types and the arrows between rooms
	$(DEV) -m ruff check .
	$(DEV) -m ruff format --check .
	$(DEV) -m mypy
	.venv/bin/lint-imports

clean: ## Remove what the other verbs made, but trained runs
	rm -rf .venv .venv-serve .bentoml .prometheus .mypy_cache .ruff_cache .pytest_cache .hypothesis
