# make help lists the targets. Every variable can be given on the command line: make run PRESET=full

# --- variables ---------------------------------------------------------------------------------------------------
GO       ?= go
PRESET   ?= quick
# further arguments of "elastic train ner": make run ARGS="--seed 7"
ARGS     ?=
NB       ?= $(sort $(wildcard notebooks/*.ipynb))
# further arguments of the notebook runner: make notebooks NB_ARGS="-p STEPS=20"
NB_ARGS  ?=
LAB_PORT ?= 8888
LAB_ARGS ?=
FUZZTIME ?= 5s
BENCH    ?= .
# GOMLX_BACKEND, if set, names the backend of run, lab and notebooks; "make test" and "make check" choose their own.

# GoMLX's pure-Go backend is 4 to 6 times faster with it.
export GOEXPERIMENT ?= simd
# Nothing is downloaded behind the back of a command: "elastic backend install" does it, and says so.
export GOMLX_NO_AUTO_INSTALL ?= 1
# A folder with data sets, so that they need not be downloaded. The one beside the checkout is used if it is there.
ifeq ($(origin ELASTIC_DATA_DIR),undefined)
  ifneq ($(wildcard $(CURDIR)/../shared/data),)
    export ELASTIC_DATA_DIR := $(abspath $(CURDIR)/../shared/data)
  endif
else
  export ELASTIC_DATA_DIR
endif

export GO FUZZTIME BENCH LAB_PORT

# --- targets -----------------------------------------------------------------------------------------------------
.DEFAULT_GOAL := help
.PHONY: help build run test check bench lab kernel notebooks notebooks-save site nb-selftest clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-15s %s\n", $$1, $$2}' $(firstword $(MAKEFILE_LIST))

build: ## build bin/elastic
	$(GO) build -o bin/elastic ./cmd/elastic

run: build ## fine-tune a named-entity model from start to end (PRESET=quick|full|seed, ARGS=...)
	@bin/elastic backend install --if-missing || echo "make run: no XLA plugin; going on with the pure-Go backend, which is slower" >&2
	bin/elastic train ner --preset $(PRESET) $(ARGS)

test: build ## run all tests, offline: on the pure-Go backend, then on XLA if a plugin is installed
	tools/test.sh

check: ## everything that CI runs: format, vet, lint, tests, race, fuzz, benchmarks once, notebooks (half an hour on two cores)
	tools/check.sh

bench: build ## measure: the Go benchmarks (BENCH=regexp), then ours against torch and JAX
	tools/bench.sh

lab: build ## open JupyterLab on the notebooks (this machine only, with a token)
	tools/lab.sh $(LAB_ARGS)

kernel: build ## install the Go kernel for your own Jupyter or VS Code
	bin/elastic nb kernel install --gopls

notebooks: build ## execute notebooks headless and compare their numbers (NB=files, NB_ARGS=...)
	tools/notebooks.sh $(NB_ARGS) $(NB)

notebooks-save: build ## the same, and write the outputs into the notebooks
	tools/notebooks.sh --write $(NB)

site: build ## make static pages of the notebooks in .cache/site
	bin/elastic nb site --output .cache/site $(NB)

nb-selftest: ## prove that the notebook runner finds broken notebooks
	tools/notebooks.sh --selftest

clean: ## remove what was built here (bin, .cache), not your runs
	rm -rf bin .cache
