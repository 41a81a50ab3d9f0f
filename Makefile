# Every target sets itself up in .venv; Python 3.11 or newer, git and make are all that must be there.
PYTHON ?= $(shell command -v python3.11 || command -v python3)
CORES ?= 2
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/installed
SNAKEMAKE := $(BIN)/snakemake --cores $(CORES)
DEMO := --configfile config/demo.yaml
DEMO_ALL := $(DEMO) config/demo_all.yaml
# One process per core, so more threads in each would only wait for one another; files stay whole,
# because their tests share what was costly to make.
PYTEST := OMP_NUM_THREADS=1 $(BIN)/python -m pytest
PARALLEL := -n $(CORES) --dist loadfile

.PHONY: lock help install demo demo-all report-open check lint types test test-slurm test-faults real plan clean-demo

help:
	@echo "make demo         train, ensemble, score and report on simulated recordings (minutes)"
	@echo "make demo-all     the same with a small version of every system, in both protocols (half an hour)"
	@echo "make report-open  open the demo's report in a browser"
	@echo "make check        lint, types and fast tests (under 3 minutes)"
	@echo "make test         every test (under 30 minutes)"
	@echo "make test-slurm   members killed in every way on a real SLURM cluster (under 35 minutes)"
	@echo "make test-faults  trainings of every recipe killed hundreds of times (under an hour)"
	@echo "make plan         jobs, GPU hours and disk of the study; PLAN=\"--configfile ...\" of another"
	@echo "make real         the pipeline on a real recording, where its data are present"

install: $(INSTALLED)

$(INSTALLED): requirements.lock pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed; set PYTHON=")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements.lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	touch $@

demo: $(INSTALLED)
	$(SNAKEMAKE) all $(DEMO)
	@echo "The report is $(CURDIR)/results/demo/report.html"

demo-all: $(INSTALLED)
	$(SNAKEMAKE) all $(DEMO_ALL)
	@echo "The report is $(CURDIR)/results/demo_all/report.html"

report-open: demo
	$(BIN)/python -m webbrowser -t "file://$(CURDIR)/results/demo/report.html"

lint: $(INSTALLED)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/snakefmt --check --compact-diff Snakefile rules
	$(BIN)/snakemake --lint --configfile config/demo.yaml

types: $(INSTALLED)
	$(BIN)/mypy

check: lint types
	$(PYTEST) $(PARALLEL) -m "not slow and not workflow and not slurm and not real and not faults" tests

test: lint types
	$(PYTEST) $(PARALLEL) -m "not workflow and not slurm and not real and not faults" tests
	$(PYTEST) $(PARALLEL) -m "workflow and not faults" tests

test-slurm: $(INSTALLED)
	$(PYTEST) -m slurm tests/slurm

test-faults: $(INSTALLED)
	$(PYTEST) -n $(CORES) -m faults tests

real: $(INSTALLED)
	$(BIN)/python -m pytest -m real -s tests/real

plan: $(INSTALLED)
	@$(BIN)/python workflow_scripts/plan.py $(PLAN)

lock:
	PYTHON="$(PYTHON)" envs/lock.sh

clean-demo:
	rm -rf results/demo
