# `make run` from clone to a result; `make check` before every commit; `make test` for all tests that need no GPU,
# network or browser.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
BOOK := $(VENV)/.installed-book

# Two processes share the cores. Threads that spin while they wait would take them from each other.
WORKERS ?= 2
THREADS := $(shell cores=$$(getconf _NPROCESSORS_ONLN); each=$$((cores / $(WORKERS))); echo $$((each > 0 ? each : 1)))
PYTEST := OMP_WAIT_POLICY=PASSIVE OMP_NUM_THREADS=$(THREADS) $(BIN)/pytest -n $(WORKERS) --dist loadfile --no-loadscope-reorder

.PHONY: run check test install lint texts outputs book bookcheck lab clean

run: install
	$(BIN)/distil run --profile cpu

check: lint
	$(PYTEST) -m "not gpu and not network and not browser and not slow" tests/static tests/unit

test: lint
	$(PYTEST) -m "not gpu and not network and not browser"

lint: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports
	$(BIN)/mypy

install: $(STAMP)

# a torch without CUDA where the index has one under the plain name; else whatever the lock's version resolves to
$(STAMP): pyproject.toml requirements.lock
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c requirements.lock -e '.[dev]'
	touch $@

texts: install
	$(BIN)/python -m benchmarks.texts

outputs: install
	$(BIN)/python -m benchmarks.outputs

# a site of all notebooks and pages, to be read without a network: build/book/index.html
book: $(BOOK)
	$(BIN)/sphinx-build -q -W --keep-going -a -E -d build/doctrees -c docs/book . build/book

bookcheck: $(BOOK)
	$(PYTEST) tests/static/test_book.py

$(BOOK): $(STAMP)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c requirements.lock -e '.[book]'
	touch $@

lab: install
	$(BIN)/jupyter lab notebooks

clean:
	rm -rf $(VENV) build *.egg-info
