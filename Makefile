# Two commands: `make run` from clone to a result, `make test` for all tests that need no GPU, network or browser.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

.PHONY: run test install lint lab clean

run: install
	$(BIN)/distil run --profile cpu

test: install
	$(BIN)/ruff check .
	$(BIN)/pytest -m "not gpu and not network and not browser"

install: $(STAMP)

# a torch without CUDA where the index has one under the plain name; else whatever the lock's version resolves to
$(STAMP): pyproject.toml requirements.lock
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c requirements.lock -e '.[dev]'
	touch $@

lint: install
	$(BIN)/ruff check .

lab: install
	$(BIN)/jupyter lab notebooks

clean:
	rm -rf $(VENV) build *.egg-info
