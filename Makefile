# make scan                   install, build a small example pair, scan both
# make scan MODEL=org/model   install, scan that
# make test                   install with the test tools, run every check
# make docs                   install, build the documentation into build/docs

PYTHON ?= python3
VENV ?= .venv
BIN = $(VENV)/bin
MODEL ?=
ARGS ?=

# On Linux the default package index serves torch with CUDA (several GB). A CPU build is enough here:
#   make scan TORCH_INDEX=https://download.pytorch.org/whl/cpu
# A torch that is already installed in $(VENV) is kept.
TORCH_SPEC ?= torch==2.13.0
TORCH_INDEX ?=

KERNELS = $(addprefix ftsec_audit/weights/,kernels.c gram.inc spectra.inc)
# Of 20,000 files that pip would compile, a quarter is ever imported, and compiled then.
PIP_INSTALL = $(BIN)/python -m pip install --quiet --disable-pip-version-check --no-compile -c constraints.txt
# Small matrices on few cores: more threads than this only wait for each other.
export OMP_NUM_THREADS ?= 1
# The tests start hundreds of processes, and each would compile the whole package again.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: scan test docs schemas clean

scan: $(VENV)/.installed
ifneq ($(MODEL),)
	$(BIN)/ftsec-audit scan $(MODEL) $(ARGS)
else
	@test -d example/poisoned || { rm -rf example; $(BIN)/python -m attacks_ref.example --out example; }
	@$(MAKE) --no-print-directory _expect WANTED=0 WHICH=clean
	@$(MAKE) --no-print-directory _expect WANTED=1 WHICH=poisoned
endif

# A scan whose exit code is part of the demonstration: 0 for the clean adapter, 1 for the poisoned one.
.PHONY: _expect
_expect:
	@echo "$$ ftsec-audit scan example/$(WHICH) --base example/base"
	@code=0; $(BIN)/ftsec-audit scan example/$(WHICH) --base example/base $(ARGS) || code=$$?; \
	echo "exit code $$code (expected $(WANTED))"; echo; test $$code -eq $(WANTED)

test: $(VENV)/.installed-test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports
	@$(MAKE) --no-print-directory -j 2 _types _tests

.PHONY: _types _tests
_types:
	$(BIN)/mypy

# Neighbours in the list share what they set up: each process begins with its half of it, and takes over
# from the other at the end.
_tests:
	$(BIN)/python -m pytest -n 2 --dist worksteal

# The documentation, as files that open without a server or a network: build/docs/index.html.
docs: $(VENV)/.installed-test
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --quiet

# The published JSON Schemas of the files that users write.
schemas: $(VENV)/.installed
	$(BIN)/python -m ftsec_audit.schemas

$(VENV)/.torch: constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -c "import torch" 2>/dev/null || \
	$(PIP_INSTALL) $(if $(TORCH_INDEX),--extra-index-url $(TORCH_INDEX)) "$(TORCH_SPEC)"
	@touch $@

$(VENV)/.installed: $(VENV)/.torch pyproject.toml $(KERNELS)
	$(PIP_INSTALL) -e .
	@touch $@

$(VENV)/.installed-test: $(VENV)/.torch pyproject.toml $(KERNELS)
	$(PIP_INSTALL) -e ".[test]"
	@touch $@ $(VENV)/.installed

clean:
	rm -rf $(VENV) example build dist *.egg-info
