# `make demo` and `make test` are all the set-up there is: they make .venv/ once and use it again.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

.PHONY: demo test test-fast check docs bench reliability serve web arm64 clean

demo: $(STAMP)  ## train, evaluate, predict, explain and report on handwritten digits
	$(BIN)/tesela demo --out runs/demo

test: $(STAMP)  ## every test
	$(BIN)/python -m pytest -n 2 --dist worksteal -q

test-fast: $(STAMP)  ## the tests that take less than a second each, for every change
	$(BIN)/python -m pytest -n 2 --dist worksteal -q -m "not slow"

check: $(STAMP)  ## style, types and the directions of imports
	$(BIN)/ruff check src tests benchmarks scripts examples
	$(BIN)/ruff format --check src tests benchmarks scripts examples
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache

docs: $(STAMP)  ## the documentation as a site in site/, which needs no network
	$(BIN)/sphinx-build -W --keep-going -q -b html docs site

bench: $(STAMP)  ## the benchmarks that need no peers
	for script in benchmarks/*.py; do $(BIN)/python $$script || exit 1; done

reliability: $(STAMP)  ## the server under load beside two others, into docs/reliability.json and its page; hours
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --target build/peers litserve schemathesis
	$(BIN)/python -m benchmarks.reliability --size full --peers build/peers \
		--out docs/reliability.json --page docs/reliability.md

serve: $(STAMP)  ## serve the demo's model on http://127.0.0.1:8000
	test -d runs/demo/bundle || $(BIN)/tesela demo --out runs/demo
	$(BIN)/tesela serve runs/demo

arm64: $(STAMP)  ## the edge runtime on an emulated arm64 Debian; as root, with debootstrap and qemu-user-static
	test -d runs/demo/bundle || $(BIN)/tesela demo --out runs/demo
	$(BIN)/tesela export runs/demo --to onnx --precision int8 --force --out runs/demo-int8
	$(BIN)/tesela export runs/demo --to onnx --with-map --out runs/demo-maps
	MAPS=runs/demo-maps scripts/check_arm64.sh runs/demo-int8 runs/demo/examples/digit-?.png

web:  ## build the web app into the package, from its lock file; needs Node 20 or later
	cd web && npm ci --no-audit --no-fund && npm run build

$(STAMP): pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt torch
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e ".[all,dev,docs]"
	touch $(STAMP)

clean:
	rm -rf $(VENV) runs site docs/_generated .pytest_cache .mypy_cache .ruff_cache .hypothesis web/node_modules
