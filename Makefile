# Everything a contributor types. `make demo` and `make test` work on a clean clone with Python, make and the package index.
PYTHON ?= python3
BIN := .venv/bin
USABLE := .venv/usable
READY := .venv/ready

.PHONY: demo test check slow gpu docs golden bench setup clean

demo: $(USABLE)  ## keep the better half of the data set that ships with the repository
	rm -rf demo/out
	mkdir -p demo/out
	$(BIN)/tunesift select demo/demo.jsonl -o demo/out/kept.jsonl keep=50%
	@$(BIN)/python demo/show.py demo/out/kept.jsonl.run

test: $(READY)  ## everything but what is slow: some minutes on two cores
	$(BIN)/python -m pytest -m "not slow and not gpu" -n auto

setup: $(READY)  ## the environment, and the hooks where this is a git checkout
	if [ -d .git ]; then $(BIN)/pre-commit install; fi

INSTALL = @$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e

$(USABLE): pyproject.toml constraints.txt
	@echo "installing tunesift and torch into .venv: half a minute or more, and silent while it loads"
	$(PYTHON) -m venv .venv
	$(INSTALL) ".[local]"
	@touch $(USABLE) && echo "installed"

$(READY): $(USABLE)
	@echo "installing the other extras and the test tools into .venv: a minute or more, and silent while it loads"
	$(INSTALL) ".[local,cluster,images,embed,train,dev]"
	@touch $(READY) && echo "installed"

check: $(READY)  ## format, lint, strict types, architecture
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/python -m pytest tests/test_architecture.py

slow: $(READY)  ## kills, faults and the browser
	$(BIN)/python -m pytest -m "slow and not gpu"

gpu: $(READY)  ## tests that need a device
	$(BIN)/python -m pytest -m gpu

docs: $(READY)  ## write the reference pages anew from the code
	$(BIN)/python docs/make_reference.py

golden: $(READY)  ## rewrite the expected files, then show what changed
	GOLDEN=rewrite $(BIN)/python -m pytest tests/methods
	git diff --stat -- tests/golden

bench: $(READY)  ## measure, into benchmarks/results
	$(BIN)/python benchmarks/scoring.py

clean:
	rm -rf .venv demo/out
