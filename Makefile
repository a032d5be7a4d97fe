# `make help` lists the targets. Everything is installed into .venv, nothing elsewhere.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
READY  := $(VENV)/.ready
BENCH  := .venv-bench
COLAB  := .venv-colab
TEACH  := .venv-teach
CELL_TIMEOUT := 300
# The oldest build for a CPU that is to be had everywhere; the weekly workflow takes 2.6.0.
OLDEST_TORCH := 2.13.0
NOT_UNIT := configuration chapters pages book recipes benchmarks rounding scale release colab claims checks
UNIT_TESTS := $(filter-out $(NOT_UNIT:%=tests/test_%.py),$(wildcard tests/test_*.py))
NOTEBOOKS := $(wildcard chapters/*.ipynb assignments/*.ipynb)

# Output on stderr fails the book, and progress bars are written there.
export TQDM_DISABLE := 1
export MPLBACKEND := agg
# Small matrices: threads only get in each other's way.
export OMP_NUM_THREADS := 1

.DEFAULT_GOAL := help
.PHONY: help book serve test test-gpu test-site set-repo newest bench claims lint format clean
.PHONY: colab colab-image test-colab dist minimum binder release assignments grade test-assignments public

help:  ## list the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*##/:/' | awk -F': ' '{printf "  make %-16s %s\n", $$1, $$2}'

book: $(READY)  ## execute the chapters and build the site
	$(BIN)/python book/forget.py
	$(BIN)/python book/_ext/assets.py
	$(BIN)/python -m claims.page
	$(BIN)/jupyter-book build . --all -W -n --keep-going
	@$(BIN)/python book/times.py
	@echo "The book is built. Open $(CURDIR)/_build/html/index.html or run: make serve"

serve:  ## show the built site at http://localhost:8000
	@test -f _build/html/index.html || { echo "There is no site yet: run make book first."; exit 1; }
	$(PYTHON) -m http.server --bind 127.0.0.1 --directory _build/html 8000

test: $(READY)  ## unit tests, doctests, and every chapter cell by cell
	$(BIN)/python -m pytest -q tests --ignore=tests/site --ignore=tests/colab
	$(BIN)/python -m pytest -q --doctest-modules gradconf
	$(BIN)/python -m pytest -q --nbval-lax --nbval-current-env --nbval-cell-timeout=$(CELL_TIMEOUT) chapters $(wildcard assignments/*.ipynb)

test-gpu: $(READY)  ## compare a GPU with the CPU: numbers, memory, repeatability; says why where it skips
	$(BIN)/python -m pytest -q -rs tests/gpu

test-site: $(READY)  ## read the built site in Chromium, offline, and write screenshots to _build/screens
	$(BIN)/python -m pytest -q tests/site tests/test_pages.py

newest:  ## like the first step of all others, but with the newest version of every package
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install -q --upgrade -e ".[book,test,site,lint,recipes]"
	@touch $(READY)

set-repo: $(READY)  ## write the repository's address wherever it stands: make set-repo URL=https://github.com/ACCOUNT/NAME
	@$(BIN)/python book/set_repository.py $(URL)

colab: $(COLAB)/.ready  ## run notebooks as Colab does, each alone: all, or make colab NOTEBOOKS=chapters/02_width.ipynb
	$(COLAB)/bin/python -m colab.run $(NOTEBOOKS)

colab-image:  ## the same in the Python that is there, as in the container image that Colab publishes
	$(PYTHON) -m colab.run $(NOTEBOOKS)

test-colab: $(READY) $(COLAB)/.ready  ## the first cell where it cannot install, and figures with ipywidgets 7 in Chromium
	$(BIN)/python -m pytest -q tests/colab

dist: $(READY) $(COLAB)/.ready  ## build wheel and sdist into dist/, check what they hold, install and try them
	rm -rf dist
	$(BIN)/python -m build --no-isolation --outdir dist . > /dev/null
	$(BIN)/python -m release.contents dist
	$(COLAB)/bin/python -m release.trial dist

minimum: $(READY)  ## unit tests with the lower bounds of pyproject.toml, and type hints against torch 2.6
	rm -rf .venv-minimum
	$(PYTHON) -m venv .venv-minimum
	$(BIN)/python -m release.bounds > .venv-minimum/bounds.txt
	.venv-minimum/bin/python -m pip install -q -c .venv-minimum/bounds.txt "torch==$(OLDEST_TORCH)" -e ".[test]"
	.venv-minimum/bin/python -m pytest -q -W ignore::DeprecationWarning $(UNIT_TESTS)
	$(BIN)/python -m release.oldest_torch

# Where the index named there cannot be reached, PIP_RETRIES=0 saves waiting for it.
binder: $(READY)  ## install what environment.yml asks pip for, as Binder does, and run the package from it
	rm -rf .venv-binder
	$(PYTHON) -m venv .venv-binder
	.venv-binder/bin/python -m pip install -q $$($(BIN)/python -m release.binder)
	.venv-binder/bin/python -m gradconf
	.venv-binder/bin/jupyter kernelspec list

release:  ## commit and tag a release: make release VERSION=0.2.0; with DRY=1 show what that would change
	$(PYTHON) -m release.prepare $(VERSION) $(if $(DRY),--dry-run)

bench: $(BENCH)/.ready  ## compare ways to compute the Gram matrix, in 25 to 40 minutes
	$(BENCH)/bin/python -m benchmarks.run
	$(BENCH)/bin/python -m benchmarks.report

claims: $(READY)  ## measure the paper's claims with two lists of ten seeds, in about 10 minutes; what is up to date is kept, but with ALL=1
	$(BIN)/python -m claims.run $(if $(ALL),--all)
	$(BIN)/python -m claims.run --seeds $(shell seq 100 109) --out gradconf/results/claims_again.json $(if $(ALL),--all)
	$(BIN)/python -m claims.page

assignments: $(TEACH)/.ready  ## make student notebooks, solutions and autograders of assignments/masters, and check them
	$(TEACH)/bin/python -m grading.generate $(ASSIGNMENT)

grade: $(TEACH)/.ready  ## grade a folder of notebooks into one table: make grade SUBMISSIONS=folder
	@test -n "$(SUBMISSIONS)" || { echo "Say which folder: make grade SUBMISSIONS=folder"; exit 1; }
	env -u TQDM_DISABLE $(TEACH)/bin/python -m grading.grade "$(SUBMISSIONS)" $(if $(ASSIGNMENT),--assignment $(ASSIGNMENT)) $(if $(OUT),--out "$(OUT)")

test-assignments: $(TEACH)/.ready  ## grade right, wrong and broken submissions, and compare with the expected marks
	$(TEACH)/bin/python -m pytest -q --noconftest tests/test_grading.py  # are the student notebooks up to date?
	$(TEACH)/bin/python -m grading.generate $(ASSIGNMENT)
	$(TEACH)/bin/python -m grading.rehearse $(ASSIGNMENT)

public:  ## write the copy for the open web, without solutions: make public DIR=folder
	@test -n "$(DIR)" || { echo "Say where: make public DIR=folder"; exit 1; }
	$(PYTHON) -m grading.publish "$(DIR)"

lint: $(READY)  ## style and spelling of code, notebooks and prose
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/nbstripout --keep-id --verify chapters/*.ipynb $(wildcard assignments/*.ipynb assignments/masters/*.ipynb)
	$(BIN)/codespell
	$(BIN)/mypy
	$(BIN)/check-jsonschema --builtin-schema vendor.github-workflows .github/workflows/*.yml
	$(BIN)/check-jsonschema --builtin-schema vendor.github-issue-forms .github/ISSUE_TEMPLATE/[!c]*.yml

format: $(READY)  ## mend what lint can mend by itself
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .
	$(BIN)/nbstripout --keep-id chapters/*.ipynb $(wildcard assignments/*.ipynb assignments/masters/*.ipynb)

clean:  ## remove the environment and everything built
	rm -rf $(VENV) $(BENCH) $(COLAB) $(TEACH) .venv-minimum .venv-binder _build build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(READY): pyproject.toml constraints.txt
	@command -v $(PYTHON) >/dev/null || { echo "There is no $(PYTHON): make PYTHON=/path/to/python3.12"; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
		|| { echo "gradconf needs Python 3.11 or newer: make PYTHON=/path/to/python3.12"; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install -q -c constraints.txt -e ".[book,test,site,lint,recipes]"
	@touch $@

$(BENCH)/.ready: pyproject.toml constraints.txt benchmarks/requirements.txt
	$(PYTHON) -m venv $(BENCH)
	$(BENCH)/bin/python -m pip install -q -c constraints.txt -e .
	$(BENCH)/bin/python -m pip install -q --no-deps -r benchmarks/requirements.txt
	@touch $@

$(COLAB)/.ready: colab/pins.txt
	rm -rf $(COLAB)
	$(PYTHON) -m venv $(COLAB)
	$(COLAB)/bin/python -m pip install -q --no-deps --no-compile -r colab/pins.txt
	@touch $@

$(TEACH)/.ready: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(TEACH)
	$(TEACH)/bin/python -m pip install -q -c constraints.txt -e ".[teach]"
	@touch $@
