# Everything a stranger needs: `make demo`, `make test`. Both make their own .venv on first use.
#
#   PYTHON       interpreter to build .venv with (3.11 or newer)
#   TORCH        the PyTorch requirement to install first
#   TORCH_INDEX  address of one more wheel index for it, e.g. PyTorch's own CPU or CUDA wheels
#   DEMO         folder of the demo's results
PYTHON      ?= python3
TORCH       ?= torch==2.13.0
TORCH_INDEX ?=
DEMO        ?= runs/demo

VENV  := .venv
BIN   := $(VENV)/bin
STAMP := $(VENV)/installed
INDEX := $(if $(TORCH_INDEX),--extra-index-url $(TORCH_INDEX))

.PHONY: demo test test-slow lint types clean

demo: $(STAMP)
	$(BIN)/seqtok demo --out $(DEMO)

# Most tests wait for processes that they start: two at once, each file whole, take half the time of one. Files come in
# the order of pyproject's testpaths, not those of most tests first: so no long one is left for the end.
test: $(STAMP)
	$(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder

test-slow: $(STAMP)
	$(BIN)/python -m pytest -m slow

lint: $(STAMP)
	$(BIN)/ruff check . && $(BIN)/ruff format --check .

types: $(STAMP)
	$(BIN)/mypy

# torch comes first and alone, so that no other package pulls a different build of it.
$(STAMP): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet $(INDEX) -c constraints.txt "$(TORCH)"
	$(BIN)/python -m pip install --quiet $(INDEX) -c constraints.txt -e ".[dev]"
	touch $(STAMP)

clean:
	rm -rf $(VENV) build *.egg-info
