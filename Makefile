# make demo    set everything up, run the main job, write demo/report.html
# make test    set everything up, run the whole test suite
# make bench   the same for the benchmarks; rewrites benchmarks/README.md
# make wheel   a wheel for this machine's Python in dist/
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check
SOURCES := CMakeLists.txt pyproject.toml constraints.txt \
           $(shell find csrc -name '*.cpp' -o -name '*.hpp')

.PHONY: demo test lint bench wheel clean
demo: $(VENV)/.installed-demo
	$(BIN)/pushforward demo

test: $(VENV)/.installed-test
	$(BIN)/python -m pytest $(PYTEST_ARGS)

lint: $(VENV)/.installed-test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	find csrc -name '*.cpp' -o -name '*.hpp' | xargs $(BIN)/clang-format --dry-run -Werror
	$(BIN)/mypy

bench: $(VENV)/.installed-bench
	for script in benchmarks/bench_*.py; do $(BIN)/python $$script || exit 1; done

wheel: $(VENV)/.build-tools
	$(PIP) wheel --no-deps --no-build-isolation -w dist .

clean:
	rm -rf build dist $(VENV)

$(VENV)/.build-tools: constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(PIP) install -q -c constraints.txt "scikit-build-core>=0.10" "pybind11>=3.0,<4" cmake ninja
	touch $@

# Editable, so that changed Python files need nothing; changed C++ files rebuild incrementally.
$(VENV)/.installed-%: $(VENV)/.build-tools $(SOURCES)
	$(PIP) install -q -c constraints.txt --no-build-isolation -e ".[$*]"
	touch $@
