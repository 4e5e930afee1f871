# Two commands: `make demo` runs the main job on real data, `make test` runs the whole suite. Each installs into .venv.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# uv looks for wheels where pip is told to look
export UV_FIND_LINKS ?= $(PIP_FIND_LINKS)

.PHONY: demo test lint docs proofs bench clean

demo: $(VENV)/.all
	$(BIN)/fabrica demo --fetch --out demo

test: $(VENV)/.dev
	OMP_NUM_THREADS=1 HF_HUB_OFFLINE=1 $(BIN)/python -m pytest -n 2 --dist worksteal $(ARGS)

lint: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

docs: $(VENV)/.dev
	$(BIN)/python -m fabrica.proofs.table

proofs: $(VENV)/.dev
	for name in $$($(BIN)/python -c "from fabrica.proofs import names; print(*names())"); do \
	  $(BIN)/fabrica prove $$name --store proofs || exit 1; done

bench: $(VENV)/.dev
	$(BIN)/python benchmarks/table.py

$(VENV)/bin/uv:
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet uv

$(VENV)/.all: $(VENV)/bin/uv pyproject.toml constraints.txt
	$(BIN)/uv pip install --compile-bytecode --python $(BIN)/python -c constraints.txt -e '.[all]'
	touch $@

$(VENV)/.dev: $(VENV)/bin/uv pyproject.toml constraints.txt
	$(BIN)/uv pip install --compile-bytecode --python $(BIN)/python -c constraints.txt -e '.[dev,bench]'
	touch $@

clean:
	rm -rf $(VENV) demo dist build
