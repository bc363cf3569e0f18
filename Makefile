# `make demo` and `make test` set up what they need. Settings: PYTHON, and TORCH_INDEX, an index that has the build of
# torch you want, such as its CPU builds (a tenth of the size, no CUDA).
PYTHON ?= python3
TORCH_INDEX ?=
JOBS ?= 2

BIN := .venv/bin
READY := .venv/ready
PEERS := .venv/ready-to-bench
SANITIZED := build/sanitize
NATIVE := setup.py $(shell find csrc -type f)
PIP := $(BIN)/python -m pip --disable-pip-version-check --quiet install -c constraints.txt $(if $(TORCH_INDEX),--extra-index-url $(TORCH_INDEX))
CPP := $(filter csrc/%,$(NATIVE))

.DEFAULT_GOAL := help
.PHONY: help demo test test-full test-sanitize quality bench bench-full bench-distributed gpu-compile readme lint format clean

help:  ## show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## /{printf "  make %-17s %s\n", $$1, $$2}' $(firstword $(MAKEFILE_LIST))

demo: $(READY)  ## train on printed letters, read handwritten digits; writes demo-output/
	@$(BIN)/siamese-fast demo

test: $(READY)  ## the tests of every change
	@$(BIN)/python -m pytest -q -n $(JOBS) -m "not slow"

test-full: $(READY)  ## every test
	@$(BIN)/python -m pytest -q -n $(JOBS)

test-sanitize: $(READY)  ## the native operations under AddressSanitizer and UndefinedBehaviorSanitizer
	@tests/sanitize.sh $(SANITIZED)

quality: $(READY)  ## accuracy of every recipe over seeds; SIAMESE_FAST_OMNIGLOT names the folder with Omniglot's archives
	@$(BIN)/python benchmarks/quality.py

bench: $(PEERS)  ## speed against other libraries, the small set
	@$(BIN)/siamese-fast bench --seconds 3

bench-full: $(PEERS)  ## every row and study, into benchmarks/results, for `make readme`
	@$(BIN)/siamese-fast bench --full --output benchmarks/results/speed.json
	@$(BIN)/siamese-fast bench --full --threads 2 --no-peers --no-memory --output benchmarks/results/speed-threads.json
	@$(BIN)/siamese-fast bench --growth --output benchmarks/results/growth.json
	@$(BIN)/siamese-fast bench --steps --output benchmarks/results/steps.json

bench-distributed: $(READY)  ## the cross-rank loss on worlds of processes, into benchmarks/results/distributed.json
	@$(BIN)/python benchmarks/distributed.py

gpu-compile: $(READY)  ## every GPU kernel compiled, without a GPU, into benchmarks/results/gpu_compile.json
	@$(BIN)/python -m siamese_fast.kernels.compilation --output benchmarks/results/gpu_compile.json

readme: $(READY)  ## the tables and plots of README.md and docs from benchmarks/results
	@$(BIN)/python benchmarks/readme.py
	@$(BIN)/python benchmarks/scaling.py

lint: $(READY)  ## ruff, mypy, clang-format
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@$(BIN)/clang-format --dry-run --Werror $(CPP)

format: $(READY)  ## rewrite the code as `make lint` wants it
	@$(BIN)/ruff check --fix --quiet .
	@$(BIN)/ruff format --quiet .
	@$(BIN)/clang-format -i $(CPP)

clean:  ## remove the environment and everything built
	rm -rf .venv build dist *.egg-info siamese_fast/*.so .pytest_cache .mypy_cache .ruff_cache .hypothesis .benchmarks demo-output

$(READY): pyproject.toml constraints.txt $(NATIVE)
	@test -x $(BIN)/python || $(PYTHON) -m venv .venv
	@echo "installing the pinned dependencies and building the extension ..."
	@$(PIP) setuptools pybind11
	@$(PIP) --no-build-isolation --editable '.[dev]'
	@touch $@

$(PEERS): $(READY)
	@echo "installing the libraries to compare with ..."
	@$(PIP) --no-build-isolation --editable '.[bench]'
	@touch $@
