# `make` alone lists what can be done.
.DEFAULT_GOAL := help
.NOTPARALLEL:
.PHONY: help setup hooks format export readme clean-notebooks check docs notebooks browser pytest test coverage fuzz smoke train app bench table1 clean

PYTHON ?= python
WORKERS ?= 2
PYTEST_ARGS ?=
RUN = $(if $(ARGS), $(ARGS))
CHECKED = nbs tests tools benchmarks realm_nb/__init__.py realm_nb/__main__.py realm_nb/app.py realm_nb/ask.py

# Tests that download share the cache of the library, so that nothing is fetched twice.
export REALM_NB_TEST_CACHE ?= $(or $(REALM_NB_HOME),$(HOME)/.cache/realm_nb)

help:  ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-16s %s\n", $$1, $$2 }' $(firstword $(MAKEFILE_LIST))

setup:  ## install the library with all that its development needs
	$(PYTHON) -m pip install -e '.[dev]'

hooks:  ## let git merge notebooks cell by cell (for this checkout)
	git config merge.nbdev-merge.name "resolve conflicts with nbdev_fix"
	git config merge.nbdev-merge.driver "nbdev_merge %O %A %B %P"

format:  ## lay out notebooks, tests, tools and benchmarks
	ruff format -q $(CHECKED)
	ruff check -q --fix $(CHECKED)

export:  ## notebooks -> realm_nb/
	nbdev_export

readme:  ## run nbs/index.ipynb, and make README.md from it
	REALM_NB_QUIET=1 $(PYTHON) -m jupyter nbconvert --to notebook --execute --inplace --log-level ERROR nbs/index.ipynb
	nbdev_clean --fname nbs/index.ipynb
	$(PYTHON) tools/readme.py

clean-notebooks:  ## drop ids, counts, widgets and progress bars from the notebooks
	$(PYTHON) tools/clean.py

check:  ## are library, README and notebooks in sync, and the notebooks clean? is all of it readable?
	$(PYTHON) tools/insync.py
	$(PYTHON) tools/readme.py --check
	$(PYTHON) tools/clean.py --check
	ruff format --check -q $(CHECKED)
	ruff check -q $(CHECKED) realm_nb
	mypy
	$(PYTHON) tools/readable.py

docs:  ## index, lessons and library as a site in _docs/, which opens from file:// (pip install -e '.[docs]')
	$(PYTHON) tools/docs.py

notebooks:  ## run every notebook (WORKERS=2)
	OMP_NUM_THREADS=1 nbdev_test --n_workers $(WORKERS) --timing

pytest:  ## run tests/ (WORKERS=2, PYTEST_ARGS="-k mini")
	OMP_NUM_THREADS=1 $(PYTHON) -m pytest -q -rs -n $(WORKERS) --dist loadfile $(PYTEST_ARGS)

browser:  ## a Chromium for the tests of the app, from Debian's packages, where there is none yet
	@command -v chromium >/dev/null || { [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null && apt-get update -qq && \
	apt-get install -y -qq --no-install-recommends chromium fonts-dejavu-core >/dev/null; } || echo "no chromium, and it cannot be installed here: install Debian's package of that name, or the tests of the app are skipped" >&2

test:  ## check + notebooks + pytest; the tests that download are skipped, with a reason, where nothing can be reached
	@failed=; for t in check browser notebooks pytest; do $(MAKE) --no-print-directory $$t || failed="$$failed $$t"; done; \
	if [ -n "$$failed" ]; then echo "failed:$$failed" >&2; exit 1; fi

coverage:  ## how much of the library notebooks and tests run, together
	$(PYTHON) -m coverage erase
	OMP_NUM_THREADS=1 $(PYTHON) -m coverage run "$$(command -v nbdev_test)" --n_workers $(WORKERS)
	OMP_NUM_THREADS=1 $(PYTHON) -m coverage run -m pytest -q -rs -n $(WORKERS) --dist loadfile $(PYTEST_ARGS)
	$(PYTHON) -m coverage combine -q
	$(PYTHON) -m coverage report

fuzz:  ## 10,000 cases for every reader of text, index and checkpoint (an hour)
	REALM_NB_FUZZ=10000 OMP_NUM_THREADS=1 $(PYTHON) -m pytest -q -n $(WORKERS) tests/test_fuzz_text.py tests/test_fuzz_index.py

smoke:  ## every stage in about a minute, nothing learnt (ARGS="--run runs/mine")
	$(PYTHON) -m realm_nb.train --recipe smoke$(RUN)

train:  ## the main job: the quick recipe, on real Wikipedia text (ARGS="--seed 1")
	$(PYTHON) -m realm_nb.train$(RUN)

app:  ## explore the newest run in the browser (ARGS="--run runs/quick --port 7860")
	$(PYTHON) -m realm_nb.app$(RUN)

bench:  ## measure against others in turns, and write docs/benchmarks.md (half an hour on a core)
	$(PYTHON) tools/bench.py

table1:  ## question answering next to the paper's table (ARGS="--towers runs/quick --run runs/table1")
	$(PYTHON) -m realm_nb table1 $(ARGS)

clean:  ## remove caches and builds; runs/ and downloads stay
	rm -rf build dist _docs _proc artefacts .pytest_cache .hypothesis .benchmarks .coverage*
	find . -name __pycache__ -not -path './.venv*' -prune -exec rm -rf {} +
	find . -name .ipynb_checkpoints -not -path './.venv*' -prune -exec rm -rf {} +
