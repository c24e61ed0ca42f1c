# Everything here works on a machine that has Python 3.11 or later and make: the first run
# of a target creates .venv and installs what the target needs.

# The first of these that is 3.11 or later.
PYTHON ?= $(shell for python in python3 python3.14 python3.13 python3.12 python3.11; do \
	$$python -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$python && break; done)

# Every one of these that is on PATH, and runs: `make test-all` takes them all.
PYTHONS = $(shell for version in 3.11 3.12 3.13 3.14 3.15; do \
	python$$version -c '' 2>/dev/null && echo $$version; done; true)
# Two for each core: about half of what a test does is waiting for a disk, a process or a clock.
WORKERS ?= $(shell expr 2 \* $$(getconf _NPROCESSORS_ONLN))
# What the targets with tests run: all of them, or TESTS=tests/wal, or TESTS="-k power tests/wal".
TESTS ?=
# The heart of each area, without sweeps over crashes and flipped bits, processes, or random lives.
FAST := $(addprefix tests/, \
	backends/test_contract.py wal/test_wal_format.py wal/test_wal.py wal/test_wal_inspect.py \
	engine/test_wire.py engine/test_mvcc_plan.py engine/test_mvcc_validate.py engine/test_mvcc_size.py \
	engine/test_changes.py engine/test_engine_reads.py engine/test_group_commit.py engine/test_leases.py \
	engine/test_clock.py store/test_arguments.py store/test_aio.py store/test_twins.py watch/test_watch_index.py \
	watch/test_watch_stream.py snapshot/test_snapshot_format.py tools/test_tools_txn_text.py \
	project/test_docs.py project/test_docs_proof.py project/test_docs_truth.py project/test_floors.py)

SANITIZERS := -fsanitize=address,undefined
# How long `make sanitize` is to fuzz.
ROUNDS ?= 5000

VENV := .venv
BIN := $(VENV)/bin
# Once, and not in each of the processes that tests start.
COMPILE = $(BIN)/python -m compileall -q kvstore backends migrations tools
# Bytecode is written, whatever the environment says: else each worker does pytest's work on all asserts again.
PYTEST = PYTHONDONTWRITEBYTECODE= $(BIN)/python -m pytest
PACKAGE := pyproject.toml setup.py

.DEFAULT_GOAL := help
.PHONY: help demo test test-all test-both fast lint check docs native sanitize wheels cover soak compare bench bench-quick etcd clean

help: ## This list.
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  make \1\t\2/p' $(MAKEFILE_LIST) | expand -t 16

demo: $(VENV)/ready-run ## A guided tour: write, read the past, watch, crash, recover.
	$(BIN)/python -m kvstore.tools.lab.demo

test: lint check ## Linters, types, and the test suite: what must pass before a commit.

lint: $(VENV)/ready-test ## Linters and types only.
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/python -m tests.project.type_check

check: $(VENV)/ready-test ## The test suite only.
	$(COMPILE)
	$(PYTEST) -n $(WORKERS) $(TESTS)

test-all: ## The test suite on every Python from 3.11 on that is on PATH; says on which.
	@for version in $(PYTHONS); do echo "--- Python $$version"; \
		$(MAKE) --no-print-directory check VENV=.venv-$$version PYTHON=python$$version || exit 1; done
	@echo "run on Python: $(PYTHONS)"

test-both: native ## The test suite twice: on the Python implementation, and on the one in C.
	$(COMPILE)
	KVSTORE_IMPL=python $(PYTEST) -n $(WORKERS) $(TESTS)
	KVSTORE_IMPL=native $(PYTEST) -n $(WORKERS) $(TESTS)

native: $(VENV)/ready-test ## Build the part in C again, after a change of kvstore/native/.
	$(BIN)/python setup.py --quiet build_ext --inplace --force
	KVSTORE_IMPL=native $(BIN)/python -c 'import kvstore'

# gcc's libraries are loaded first, as Python itself was not built with them; what Python keeps to its end is no leak.
sanitize: $(VENV)/ready-test ## Property tests and a long fuzz of the part in C, under ASan and UBSan.
	rm -rf build/sanitized
	CFLAGS="$(SANITIZERS) -O1 -g -fno-omit-frame-pointer -fno-sanitize-recover=all" LDFLAGS="$(SANITIZERS)" \
		$(BIN)/python setup.py --quiet build_ext --build-lib build/sanitized --build-temp build/sanitizing --force
	LD_PRELOAD="$$($(CC) -print-file-name=libasan.so) $$($(CC) -print-file-name=libubsan.so)" \
		ASAN_OPTIONS=detect_leaks=0:allocator_may_return_null=1 PYTHONMALLOC=malloc KVSTORE_FUZZ_ROUNDS=$(ROUNDS) \
		KVSTORE_IMPL=native $(BIN)/python -m pytest -p tests.native.sanitized --timeout 0 \
		tests/native/test_both_implementations.py tests/native/test_fuzz.py tests/wal/test_wal_format.py

wheels: $(VENV)/ready-wheels ## A wheel with the part in C for any Linux of this processor, in dist/, tried on every Python on PATH.
	@rm -rf build/wheel dist/*.whl
	$(BIN)/python -m pip wheel --quiet --disable-pip-version-check --no-deps --wheel-dir build/wheel .
	PATH="$(abspath $(BIN)):$$PATH" $(BIN)/auditwheel repair --wheel-dir dist build/wheel/kvstore_mvcc-*-abi3-*.whl
	$(BIN)/python -m zipfile -e dist/kvstore_mvcc-*-abi3-manylinux*.whl build/wheel
	@for version in $(PYTHONS); do echo "--- Python $$version"; python$$version -I -c \
		'import sys; sys.path.insert(0, "build/wheel/kvstore"); import _native; print(len(_native.names()), "functions")' \
		|| exit 1; done
	@ls dist

fast: $(VENV)/ready-test ## About a minute of tests, for while you work: the plain ones of each area.
	$(PYTEST) -n $(WORKERS) $(FAST)

docs: $(VENV)/ready-docs ## The documents as a site, in site/: reference from docstrings, every link checked.
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --quiet

cover: $(VENV)/ready-cover ## Coverage of the test suite, its processes included: a summary, and htmlcov/ to browse.
	$(BIN)/coverage erase
	$(BIN)/coverage run -m pytest -n $(WORKERS) $(TESTS)
	$(BIN)/coverage combine --quiet
	$(BIN)/coverage html --quiet
	$(BIN)/coverage report --skip-covered --sort=cover

soak: $(VENV)/ready-test ## The long runs, whose figures the documents give.
	$(PYTEST) -n $(WORKERS) -m soak --timeout 0 $(TESTS)

compare: $(VENV)/ready-test ## Compare with the etcd on PATH (or KVSTORE_ETCD=...), tens of thousands of requests.
	$(PYTEST) -n $(WORKERS) -m "soak or not soak" --timeout 0 tests/etcd/test_against_etcd.py

bench: $(VENV)/ready-bench ## Measure against other stores, and write docs/measured.md (KVSTORE_IMPL=python: measured-python.md).
	$(BIN)/python -m kvstore.tools.lab.bench --page docs

bench-quick: $(VENV)/ready-bench ## The same, tiny: to see that it works.
	$(BIN)/python -m kvstore.tools.lab.bench --quick

etcd: ## Install etcd and etcdctl (Debian, as root) for the tests that ask a real one.
	@command -v etcd >/dev/null && command -v etcdctl >/dev/null && echo "etcd is installed" || \
	{ apt-get update -q && RUNLEVEL=1 DEBIAN_FRONTEND=noninteractive \
	apt-get install -q -y --no-install-recommends etcd-server etcd-client; }

clean: ## Remove what builds and tests left behind, .venv included.
	rm -rf $(VENV) .venv-* build dist site *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis .coverage* htmlcov
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(BIN)/python:
	@test -n "$(PYTHON)" || { echo "Python 3.11 or later is needed; say which: make PYTHON=/path/to/python" >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)

$(VENV)/ready-%: $(PACKAGE) | $(BIN)/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[$(EXTRAS)]'
	@touch $@

$(VENV)/ready-run: EXTRAS := cli
$(VENV)/ready-test: EXTRAS := test
$(VENV)/ready-cover: EXTRAS := test,cover
$(VENV)/ready-bench: EXTRAS := cli,serve,bench
$(VENV)/ready-docs: EXTRAS := docs
$(VENV)/ready-wheels: EXTRAS := wheels
