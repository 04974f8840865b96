# `make` lists the targets. Every target installs what it needs; none requires another to have been run first.

PYTHON ?= python3
VENV   ?= .venv
RUN    := $(VENV)/bin/python
READY  := $(VENV)/.ready
TESTS  := $(VENV)/.ready-tests
DOCS   := $(VENV)/.ready-docs

# Variables that narrow a reproduction: NETS="voc-fcn8s voc-fcn16s" DEVICE=cuda LIMIT=20 DATA=dir WEIGHTS=dir MIRROR=url-dir-or-hf:owner/name
# MANIFEST=file REPORTS=dir MODEL=file BY="your name"
NARROW  = $(if $(NETS),--nets $(NETS)) $(if $(DEVICE),--device $(DEVICE)) $(if $(LIMIT),--limit $(LIMIT)) \
          $(if $(DATA),--data $(DATA)) $(if $(WEIGHTS),--weights $(WEIGHTS)) $(if $(MIRROR),--mirror $(MIRROR)) \
          $(if $(MANIFEST),--manifest $(MANIFEST)) $(if $(REPORTS),--report $(REPORTS)) $(if $(MODEL),--model $(MODEL)) $(if $(BY),--by "$(BY)")
MINI   := mini-vgg,mini-fcn32s,mini-fcn16s,mini-fcn8s

# Two processes with one thread each. A worker that has finished takes tests from the other.
PYTEST := OMP_NUM_THREADS=1 OPENBLAS_NUM_THREADS=1 $(RUN) -m pytest -q -n 2 --dist worksteal
# Tests of milliseconds: the rules of the project, formats, single layers, images and data sets.
QUICK  := tests/test_architecture.py tests/test_prose.py tests/test_public_names.py tests/caffe/schema \
          tests/caffe/layers tests/fcn/images tests/fcn/datasets tests/fcn/fetch tests/fcn/scoring tests/pycaffe/proto

.DEFAULT_GOAL := help
.PHONY: help setup lint format quick test test-all docs prototxt exactness tables experiments bench gpu readme clean train-mini compare-mini

help: ## print this list
	@echo "make TARGET      (NETS=voc-fcn8s DEVICE=cuda LIMIT=20 DATA=dir narrow the reproductions)"
	@$(if $(wildcard reproduction/caffe/tested_on_cuda.json),:,echo "                 (DEVICE=cuda is untested on CUDA)")
	@echo
	@awk -F ':.*## ' '/^[a-z$$][^:]*:.*## /{printf "  %-24s %s\n", $$1, $$2}' $(firstword $(MAKEFILE_LIST))
	@echo
	@echo "Commands, each with --help, after \`. $(VENV)/bin/activate\`; docs/own_data.md explains how to use your own images:"
	@echo
	@awk -F '"' '/^}/{exit} /^    "[a-z-]+": "/{printf "  fcn %-20s %s\n", $$2, $$4}' reproduction/commands/program.py

setup: $(READY) ## create .venv with the versions of constraints.txt (1 minute, 0.3 GB to download, 1.3 GB on disk; more with CUDA)

define INSTALL
@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	{ echo "error: $(PYTHON) is older than Python 3.11. Name a newer one: make PYTHON=python3.12" >&2; exit 1; }
test -x $(RUN) || $(PYTHON) -m venv $(VENV)
PIP_CONSTRAINT= $(RUN) -m pip install --quiet --disable-pip-version-check -c constraints.txt -e
endef

$(READY): pyproject.toml setup.py constraints.txt
	@test -e $@ || echo "Setting up $(VENV): downloads 0.3 GB (more with CUDA), takes 1 to 3 minutes."
	$(INSTALL) '.[hdf5,pycaffe]'
	touch $@

# Tests, lint and benchmarks also need other frameworks to compare with, a browser driver and linters.
$(TESTS): $(READY)
	@test -e $@ || echo "Adding what the tests need to $(VENV): downloads 0.2 GB, takes 1 minute."
	$(INSTALL) '.[test]'
	touch $@

$(DOCS): $(READY)
	@test -e $@ || echo "Adding what the reference needs to $(VENV): takes seconds."
	$(INSTALL) '.[docs]'
	touch $@

lint: $(TESTS) ## check format, style, docstrings and types (1 minute)
	$(RUN) -m ruff format --check .
	$(RUN) -m ruff check .
	$(RUN) -m mypy

format: $(TESTS) ## format the sources and apply the automatic fixes of the linter
	$(RUN) -m ruff format .
	$(RUN) -m ruff check --fix .

quick: $(TESTS) ## check format and style, and run the fast tests (under 1 minute on two cores)
	$(RUN) -m ruff format --check -q .
	$(RUN) -m ruff check -q .
	$(PYTEST) -m "not slow" $(QUICK)

test: $(TESTS) ## run the tests: offline, no GPU (7 minutes on two cores)
	$(PYTEST) -m "not slow"

test-all: $(TESTS) ## run all tests, the slow ones included: long fuzzing, memory use (about 30 minutes)
	$(PYTEST)

docs: $(DOCS) ## write the API reference to docs/api/ (1 minute)
	$(RUN) tools/api_docs.py

prototxt: $(READY) ## generate prototxt/ from the definitions of the published nets
	$(RUN) tools/make_prototxt.py

exactness: $(TESTS) ## compare every layer and net with recorded results of Caffe (2 minutes)
	$(RUN) tools/exactness.py

tables: $(READY) ## compute the paper's other tables: shapes, times, upper bounds, strides (3 minutes on Mini-VOC; SET=voc for VOC)
	$(RUN) -m reproduction tables $(or $(SET),mini --fixed --iterations 600) $(if $(DATA),--data $(DATA)) \
		$(if $(DEVICE),--device $(DEVICE)) $(if $(LIMIT),--limit $(LIMIT)) $(if $(REPORTS),--report $(REPORTS))

experiments: $(READY) ## run the paper's experiments on Mini-VOC and compare with the paper (30 minutes; EXPERIMENTS="fixed masks" SEEDS=3)
	OMP_NUM_THREADS=1 $(RUN) -m reproduction experiments $(or $(EXPERIMENTS),all) $(if $(SEEDS),--seeds $(SEEDS)) $(if $(DATA),--data $(DATA)) \
		$(if $(DEVICE),--device $(DEVICE)) $(if $(LIMIT),--limit $(LIMIT)) $(if $(REPORTS),--report $(REPORTS)) $(if $(RECORD),--record)

bench: $(TESTS) ## compare the speed with the frameworks that are installed (20 minutes; BENCH="--nets resnet50", ...)
	$(RUN) tools/bench.py $(BENCH)

# Of the interpreter that PYTHON names, or of .venv if PYTHON is not set. Nothing is installed.
gpu: ## test and measure on a GPU, and record the figures (9 minutes; PYTHON=python3.12 with a torch that has CUDA)
	$(if $(filter file,$(origin PYTHON)),$(if $(wildcard $(RUN)),$(RUN),$(PYTHON)),$(PYTHON)) tools/gpu.py

readme: $(READY) ## draw the figure of README.md and write the generated parts of README.md and docs/
	$(RUN) tools/figure.py
	$(RUN) tools/readme.py

reproduce-mini: ## score the nets of weights/mini on generated images and compare with the recorded scores (1 minute, no download)
reproduce-voc: ## score the published PASCAL VOC nets and compare with the paper (downloads 2.4 GB of weights and VOC 2011; hours without a GPU)
reproduce-nyud: ## the same on NYUDv2 (2.2 GB of weights and the data)
reproduce-siftflow: ## the same on SIFT Flow (1.6 GB of weights and the data)
reproduce-pascalcontext: ## the same on PASCAL-Context (1.7 GB of weights and VOC 2010)

# Not phony, so that a new data set needs no line here.
reproduce-%: $(READY)
	$(RUN) -m reproduction reproduce $* $(NARROW)

# One thread: these layers are too thin to gain from a second one, and the number of threads changes the rounding of
# sums, so that machines with the same processor train the same weights.
train-mini: $(READY) ## train the nets of weights/mini as in the paper and compare their scores (under 20 minutes); RECORD=1 replaces them
	OMP_NUM_THREADS=1 $(RUN) -m reproduction train --stages $(MINI) --out runs/mini $(if $(DATA),--data $(DATA)) $(if $(DEVICE),--device $(DEVICE))
	$(RUN) -m reproduction reproduce mini --trained runs/mini --report reports/trained $(NARROW) $(if $(RECORD),--record)

# Two processes with one thread each. The same command resumes a run that was stopped.
compare-mini: $(READY) ## train nine nets on Mini-VOC at an equal budget, three seeds each, and compare them (1 hour on two cores); RECORD=1 keeps the scores
	OMP_NUM_THREADS=1 $(RUN) -m reproduction compare $(if $(NETS),--nets $(NETS)) $(if $(DATA),--data $(DATA)) \
		$(if $(WEIGHTS),--weights $(WEIGHTS)) $(if $(REPORTS),--report $(REPORTS)) $(if $(RECORD),--record)

clean: ## remove generated files, but neither downloads nor reports
	rm -rf $(VENV) build docs/api *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
