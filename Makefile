# Two commands on a fresh machine with Python 3.11+ and make: `make demo` and `make test`.
SHELL := /bin/bash
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
LIGHT_STAMP := $(VENV)/.installed-light
DEMO := var/demo
TORCH := torch==2.13.0
TORCH_CPU_INDEX := https://download.pytorch.org/whl/cpu
# Torch with more OpenMP threads than free cores is many times slower. Tests run in one process more than there are
# cores, because a fifth of their time and more goes into waiting.
# (`nproc` answers OMP_NUM_THREADS where that is set.)
CORES := $(shell env -u OMP_NUM_THREADS nproc 2>/dev/null || echo 2)

.PHONY: help install demo demo-release smoke test quick format lint types imports docs site client-types pictures unit coverage system soak locks digests audit benchmarks-venv generators clean

help:  ## this list
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 16

install: $(STAMP)  ## everything the other targets need, into .venv

$(STAMP): pyproject.toml constraints.txt clients/python/pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit("Python 3.11 or newer is needed, this is " + sys.version.split()[0]) if sys.version_info < (3, 11) else None'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -c 'import torch' 2>/dev/null \
	  || $(BIN)/pip install --quiet --retries 0 --timeout 10 --index-url $(TORCH_CPU_INDEX) $(TORCH) 2>/dev/null \
	  || $(BIN)/pip install --quiet $(TORCH)
	$(BIN)/pip install --quiet --constraint constraints.txt --editable '.[offline,dev]' --editable ./clients/python
	touch $@

# The same without the offline job's packages, which are large; nothing where they are there already.
$(LIGHT_STAMP): pyproject.toml constraints.txt clients/python/pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	test $(STAMP) -nt pyproject.toml \
	  || $(BIN)/pip install --quiet --constraint constraints.txt --editable '.[dev]' --editable ./clients/python
	touch $@

$(DEMO)/data/interactions.csv: $(STAMP)
	$(BIN)/python -m offline demo-shop $(DEMO)/data

demo-release: $(DEMO)/data/interactions.csv
	$(BIN)/python -m offline run --data $(DEMO)/data --releases $(DEMO)/releases --preset demo

demo: demo-release  ## generate the demo shop, train it, serve it and its page, http://127.0.0.1:8000/demo
	$(BIN)/python -m service --releases $(DEMO)/releases --state-dir $(DEMO)/state --demo

smoke: demo-release  ## as demo, then make a shop's calls, print the answers, exit
	$(BIN)/python examples/smoke.py --releases $(DEMO)/releases --data $(DEMO)/data

test: system lint types imports site unit  ## everything that must hold before a commit

# Needs no torch, no Redis, no browser and no network: what stands in the repository is enough.
QUICK := tests/service tests/isrf/contract tests/isrf/method tests/isrf/runtime \
  tests/test_structure.py tests/test_tiny_bundle.py

# Compiled modules are kept: without them each process that a test starts compiles the whole service again.
quick: $(LIGHT_STAMP)  ## the fast tests, without torch, Redis, a browser or a network
	PYTHONDONTWRITEBYTECODE= OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q -p tests.without_offline -n $$(($(CORES) + 1)) --dist loadfile \
	  -m 'not (soak or slow or trained or redis or browser)' $(QUICK)

format: $(LIGHT_STAMP)  ## mend what ruff can mend, and wrap lines
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(STAMP)
	$(BIN)/mypy

imports: $(STAMP)
	$(BIN)/lint-imports

docs: $(STAMP)  ## write the reference pages anew from the code, and build the site into var/docs
	$(BIN)/python -m docs.generate
	$(BIN)/python -m docs.generate.plots
	$(MAKE) --no-print-directory site

# A link that leads nowhere, or a page that no menu names, fails.
site: $(STAMP)
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --quiet --strict

# Needs npm. The types stand in the repository: a shop, the examples and the tests need no build.
client-types: $(STAMP)  ## write the JavaScript client's types anew, after a change of the API or of the client
	mkdir -p var && $(BIN)/python -m docs.generate.openapi > var/openapi.json
	cd clients/javascript && npm ci --no-audit --no-fund && npm run openapi && npm run types

pictures: demo-release  ## take the pictures of the documents anew, with Chromium
	$(BIN)/python -m docs.generate.pictures

unit: $(STAMP) generators
	OMP_NUM_THREADS=1 $(BIN)/pytest -n $$(($(CORES) + 1)) --dist loadfile -m 'not soak'

coverage: system $(STAMP)  ## the tests again, with the lines that none of them runs; about twice the CPU time
	OMP_NUM_THREADS=1 $(BIN)/pytest -n $$(($(CORES) + 1)) --dist loadfile -m 'not soak' --cov

# What the images install, every package with its version and the hashes of its files.
LOCKS := docker/locks
UV := var/uv/bin/uv
UV_VERSION := 0.13.9
LOCK := $(UV) pip compile --quiet --no-config --universal --python-version 3.11 --generate-hashes \
  --custom-compile-command 'make locks' --constraint constraints.txt
CUDA := triton|nvidia-[a-z0-9-]*|cuda-[a-z0-9-]*

$(UV):
	$(PYTHON) -m venv var/uv
	var/uv/bin/pip install --quiet uv==$(UV_VERSION)

locks: $(UV)  ## write docker/locks anew, after a change of constraints.txt or of what is required
	$(LOCK) docker/requirements-cpu.txt --output-file $(LOCKS)/service-cpu.txt
	$(LOCK) docker/requirements-gpu.txt --output-file $(LOCKS)/service-gpu.txt
	$(LOCK) docker/requirements-build.txt --output-file $(LOCKS)/build.txt
	echo '$(TORCH)' | $(LOCK) - --output-file $(LOCKS)/torch-gpu.txt
	$(LOCK) --extra offline --extra object-store pyproject.toml --output-file $(LOCKS)/offline.txt --no-emit-package torch \
	  $$(grep -oE '^($(CUDA))==' $(LOCKS)/torch-gpu.txt | sed 's/==//; s/^/--no-emit-package /')
	@if echo '$(TORCH)' | $(LOCK) - --no-deps --default-index $(TORCH_CPU_INDEX) --emit-index-url \
	  --output-file $(LOCKS)/torch-cpu.new; then mv $(LOCKS)/torch-cpu.new $(LOCKS)/torch-cpu.txt; \
	else echo "KEPT: $(LOCKS)/torch-cpu.txt, since PyTorch's index cannot be reached." >&2; fi

digests:  ## write the images' digests anew, after a change of a tag (asks the registries; needs docker buildx)
	$(PYTHON) docker/digests.py

AUDIT := var/audit
PIP_AUDIT := pip-audit==2.10.1

audit:  ## known vulnerabilities of every pinned package, of the tests and of the images
	@test -x $(AUDIT)/bin/pip-audit || { $(PYTHON) -m venv $(AUDIT) && $(AUDIT)/bin/pip install --quiet $(PIP_AUDIT); }
	@cat constraints.txt $(LOCKS)/*.txt | grep -oE '^[A-Za-z0-9][^ ;\]*==[^ ;+\]+' | sort -u > $(AUDIT)/pinned.txt
	@$(AUDIT)/bin/pip-audit --strict --requirement $(AUDIT)/pinned.txt --no-deps --disable-pip --progress-spinner off \
	  > $(AUDIT)/report.txt 2>&1 && cat $(AUDIT)/report.txt && exit 0; \
	cat $(AUDIT)/report.txt >&2; grep -q '^Found .* known vulnerabilit' $(AUDIT)/report.txt && exit 1; \
	echo "NOT AUDITED: the package index's vulnerability service could not be asked, so nothing is known." >&2; exit 2

soak: system $(STAMP)  ## long storms
	OMP_NUM_THREADS=1 $(BIN)/pytest -m soak --timeout 3600

benchmarks-venv: benchmarks/.venv/.installed  ## RecTools for `benchmarks/quality.py --sasrec`, in an environment of its own

benchmarks/.venv/.installed: benchmarks/requirements.txt
	test -x benchmarks/.venv/bin/python || $(PYTHON) -m venv benchmarks/.venv
	benchmarks/.venv/bin/python -c 'import torch' 2>/dev/null \
	  || benchmarks/.venv/bin/pip install --quiet --retries 0 --timeout 10 --index-url $(TORCH_CPU_INDEX) $(TORCH) 2>/dev/null \
	  || benchmarks/.venv/bin/pip install --quiet $(TORCH)
	benchmarks/.venv/bin/pip install --quiet --requirement $<
	touch $@

# What makes clients of the OpenAPI document, for `tests/clients/test_generated.py`.
GENERATORS := var/generators

generators: $(GENERATORS)/.installed  ## generators of API clients, in an environment of their own

$(GENERATORS)/.installed: tests/clients/generators/requirements.txt tests/clients/generators/package.json
	@test -x $(GENERATORS)/bin/python || $(PYTHON) -m venv $(GENERATORS)
	@$(GENERATORS)/bin/pip install --quiet --retries 1 --requirement $< \
	  || echo "NOT INSTALLED: no Python client is generated in the tests, since the package index cannot be reached." >&2
	@cp tests/clients/generators/package.json $(GENERATORS)
	@{ command -v npm >/dev/null && npm install --prefix $(GENERATORS) --silent --no-audit --no-fund; } \
	  || echo "NOT INSTALLED: no TypeScript client is generated in the tests: npm or its registry is not there." >&2
	@test ! -x $(GENERATORS)/bin/openapi-python-client || test ! -e $(GENERATORS)/node_modules/.bin/tsc || touch $@

# A command and the Debian package that has it.
SYSTEM := redis-server:redis-server chromium:chromium

system:  ## redis-server and chromium: installed where apt and root are there, else named
	@missing=; for one in $(SYSTEM); do command -v $${one%%:*} >/dev/null || missing="$$missing $${one##*:}"; done; \
	[ -z "$$missing" ] && exit 0; \
	if command -v apt-get >/dev/null && [ "$$(id -u)" = 0 ]; then \
	  apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $$missing >/dev/null; \
	else \
	  echo "missing:$$missing. Install your system's packages (Debian: apt-get install$$missing)" >&2; exit 1; \
	fi

clean:  ## remove what the other targets made (.venv stays)
	rm -rf var build *.egg-info .mypy_cache .pytest_cache .ruff_cache .import_linter_cache .hypothesis
