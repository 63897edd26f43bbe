# `make demo` and `make test` set everything up on a fresh machine, then run.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
# Empty is unset: where a machine sets it, every command of the tests would compile torch and diffusers anew.
export PYTHONDONTWRITEBYTECODE :=
TORCH := $(shell grep '^torch==' constraints.txt)

.PHONY: demo test tests with-diffusers ablations docs links lint style types

demo: $(READY)
	$(BIN)/apexgen demo

# make -j2 test: the linters beside the tests, which wait for processes now and then.
test: lint tests

tests: $(READY)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n auto --dist loadfile

# The families beside another diffusers, kept in build: make with-diffusers DIFFUSERS=0.38.0 [KEEP='not zimage']
with-diffusers: $(READY)
	$(BIN)/python -m pip install --no-deps --target build/diffusers-$(DIFFUSERS) diffusers==$(DIFFUSERS)
	PYTHONPATH=$(CURDIR)/build/diffusers-$(DIFFUSERS) OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n auto \
	  tests/test_families.py tests/test_families_files.py tests/test_families_train.py tests/test_targets.py tests/test_export.py -k '$(KEEP)'

# Every contest of runs/ablations, anew; hours on two cores. Its tables go into docs/ablations.
ablations: $(READY)
	mkdir -p docs/ablations
	for file in runs/ablations/*.toml; do \
	  name=$$(basename $$file .toml); \
	  $(BIN)/apexgen compare $$file --folder build/ablations/$$name && cp build/ablations/$$name/compare.md docs/ablations/$$name.md || exit 1; \
	done

# The site, in build/site; a broken link or a page that the navigation lacks fails it.
docs: $(READY)
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet

# The same, and every link to another site is followed: it needs a network, so no test does it.
links: $(READY)
	LINKS=true NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet

# The pages are built by a test, strictly.
lint: style types

style: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports

types: $(READY)
	$(BIN)/mypy

# torch comes first and alone, so that the pinned build is the one that everything else finds. The rest is uv's, in
# seconds; where that fails, pip's, which takes minutes and knows the machine's own indices.
$(READY): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.version_info >= (3, 11) or sys.exit("write: make PYTHON=python3.11")'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --no-compile '$(TORCH)'
	$(BIN)/python -m pip install --no-compile uv && $(BIN)/uv pip install --python $(BIN)/python -e '.[dev]' -c constraints.txt || \
	  $(BIN)/python -m pip install --no-compile -e '.[dev]' -c constraints.txt
	touch $(READY)
