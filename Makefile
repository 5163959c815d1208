# Two commands set everything up: `make run` and `make test`.
PYTHON ?= python3
VENV   ?= .venv
BIN    := $(VENV)/bin

.PHONY: help install run test lint check format bench bench-video bench-video-rates bench-video-access \
	bench-archive bench-engine bench-weights fuzz chaos clean

help:     ## list the commands
	@grep -E '^[a-z-]+: .*##' $(MAKEFILE_LIST) | sed -E 's/:.*##/\t/' | expand -t 16

install: $(VENV)/.installed ## make .venv with the pinned packages

$(VENV)/.installed: pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "framefold needs Python 3.11 or newer: make PYTHON=python3.11")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	touch $@

run: install ## fit, archive and measure the bundled clip
	$(BIN)/pipeline run pipeline.yaml

# What runs on Ray has the cores to itself, for it is about processes that die; all else shares them.
ON_RAY := tests/chaos tests/test_plugin_example.py $(addprefix tests/pipeline/test_,ray_faults.py ray_executor.py \
	placement.py stage_suite.py)

test: install ## all tests
	$(BIN)/python -m pytest --numprocesses 2 --dist worksteal $(addprefix --ignore=,$(ON_RAY))
	$(BIN)/python -m pytest $(ON_RAY)

lint: install ## style, types, layers
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

check: lint test ## what a change must pass

format: install ## apply the style
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: install ## measure beside x264 and x265; prints tables
	OMP_NUM_THREADS=1 $(BIN)/python benchmarks/video/main_job.py

bench-video: install ## measure the video networks by CPU seconds, beside their authors' code where ARGS has --peers FOLDER
	OMP_NUM_THREADS=1 $(BIN)/python benchmarks/video/speed.py --json out/bench-video.jsonl $(ARGS)

bench-video-rates: install ## measure rate and distortion beside x264, x265 and SVT-AV1; goes on where it was broken off
	OMP_NUM_THREADS=1 $(BIN)/python benchmarks/video/rates.py --json out/bench-video.jsonl $(ARGS)

bench-video-access: install ## measure single frames beside x264, and what more clips cost
	OMP_NUM_THREADS=1 $(BIN)/python benchmarks/video/access.py --json out/bench-video.jsonl $(ARGS)

bench-engine: install ## measure the engine beside Ray Data and cosmos-xenna; installs them apart, on first use
	OMP_NUM_THREADS=1 $(BIN)/python benchmarks/engine.py

bench-archive: install ## measure the archive beside ZIP, Zarr and MCAP; installs them apart, on first use
	OMP_NUM_THREADS=1 $(BIN)/python benchmarks/archive.py

bench-weights: install ## measure weights to bytes beside NNCodec, zstd and Huffman; installs NNCodec apart, on first use
	OMP_NUM_THREADS=1 $(BIN)/python benchmarks/weights.py

fuzz: install ## read 50,000 forged archives; takes some minutes
	FRAMEFOLD_FUZZ_RUNS=$${FRAMEFOLD_FUZZ_RUNS:-50000} OMP_NUM_THREADS=1 $(BIN)/python -m pytest tests/fuzz

chaos: install ## kill workers and machines at random in 200 runs; takes two to three hours
	FRAMEFOLD_CHAOS_RUNS=$${FRAMEFOLD_CHAOS_RUNS:-200} OMP_NUM_THREADS=1 $(BIN)/python -m pytest tests/chaos

clean: ## remove what was made, except archives under out/
	rm -rf $(VENV) build dist src/*.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
