# SPDX-License-Identifier: Apache-2.0
"""The rules of the tree: which way includes and imports run, how long files are, what is exported."""

import ast
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import pushforward as pf

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "python" / "pushforward"
CSRC = ROOT / "csrc"

pytestmark = pytest.mark.skipif(
    not CSRC.exists(), reason="needs a checkout, not an installed wheel"
)

# What a folder of csrc/ may include. backend/ knows no kernel; nothing but bindings knows Python.
INCLUDES = {
    "core": {"core"},
    "kernels": {"core", "kernels"},
    "backend": {"core", "backend"},
    "ops": {"core", "kernels", "backend", "ops"},
    "": {"core", "backend", "ops", ""},
}

# Python modules from the bottom up; each may import from those on lines above it.
LAYERS = [
    ["_native"],
    ["_reference"],
    ["_ops"],
    [
        "random",
        "ops",
        "progress",
        "pacing",
        "interrupts",
        "diagnostics",
        "files",
        "facts",
        "plotting",
        "bytecode",
    ],
    ["parameters", "sums"],
    ["targets", "info", "storage"],
    ["fingerprints", "constrained"],
    ["checkpoint", "identity"],
    ["mcmc", "nets", "lattice"],
    ["chains", "recording", "sweeps"],
    ["graphs", "results", "named_chains"],
    ["run"],
    ["resume"],
    ["sampling", "diffusion"],
    ["demo"],
    ["cli"],
]


def sources(*suffixes):
    return [p for p in CSRC.rglob("*") if p.suffix in suffixes]


def test_includes_run_one_way():
    for path in sources(".hpp", ".cpp", ".cuh"):
        folder = path.relative_to(CSRC).parent.as_posix().removeprefix(".")
        for name in re.findall(r'#include "([^"]+)"', path.read_text()):
            target = Path(name).parent.as_posix().removeprefix(".")
            assert target in INCLUDES[folder], f"{path.name} includes {name}"
            assert (CSRC / name).exists(), f"{path.name} includes {name}"


def test_only_the_bindings_know_python_and_nobody_knows_torch():
    for path in sources(".hpp", ".cpp", ".cuh"):
        text = path.read_text()
        if path.parent != CSRC:
            assert "Python.h" not in text
            assert "pybind11" not in text
        assert "torch/" not in text.replace("torch/utils", "")


def test_launches_are_in_one_file():
    with_launch = [p.name for p in sources(".hpp", ".cpp", ".cuh", ".cu") if "<<<" in p.read_text()]
    assert set(with_launch) == {"launch.cuh"}


def imports_of(path):
    """Top modules of the package that a file imports at run time."""
    found = set()
    tree = ast.parse(path.read_text())
    guarded = {
        id(child)
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)
        for child in ast.walk(node)
    }
    for node in ast.walk(tree):
        if id(node) in guarded:
            continue
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "pushforward":
            parts = node.module.split(".")
            found |= {parts[1]} if len(parts) > 1 else {alias.name for alias in node.names}
        if isinstance(node, ast.Import):
            found |= {a.name.split(".")[1] for a in node.names if a.name.startswith("pushforward.")}
    return found


def test_imports_run_down_the_layers():
    level = {name: i for i, names in enumerate(LAYERS) for name in names}
    for path in PACKAGE.rglob("*.py"):
        module = path.relative_to(PACKAGE).parts[0].removesuffix(".py")
        if module in ("__init__", "__main__"):
            continue
        assert module in level, f"{module} has no place in LAYERS"
        for name in imports_of(path) - {module, "__version__"}:
            assert level[name] < level[module], f"{path.relative_to(PACKAGE)} imports {name}"


def test_only_ops_imports_the_native_module():
    for path in PACKAGE.rglob("*.py"):
        if "_native" in imports_of(path):
            assert path.parent.name == "_ops", path


def test_files_fit_a_sitting():
    files = [*sources(".hpp", ".cpp", ".cuh"), *PACKAGE.rglob("*.py")]
    lengths = sorted(len(p.read_text().splitlines()) for p in files)
    tests = [*(ROOT / "tests").rglob("*.py")]
    too_long = [p.name for p in [*files, *tests] if len(p.read_text().splitlines()) > 400]
    assert too_long == []
    assert lengths[len(lengths) // 2] < 200


def test_every_source_names_its_licence():
    for path in [*sources(".hpp", ".cpp", ".cuh"), *PACKAGE.rglob("*.py"), *ROOT.glob("t*/*.py")]:
        assert "SPDX-License-Identifier: Apache-2.0" in path.read_text().splitlines()[0], path


@pytest.mark.skipif(not shutil.which("nm"), reason="needs binutils")
def test_no_weak_symbol_is_shared_between_cpu_levels():
    # A weak symbol outside the level's namespace would be merged by the linker, and a baseline
    # processor could be handed the AVX-512 copy.
    objects = [
        path
        for path in (ROOT / "build").rglob("pf_cpu_*.dir/csrc/ops/*.o")
        if "emulator" not in path.parts
    ]
    if not objects:
        pytest.skip("needs the build folder of this checkout")
    for path in objects:
        listing = subprocess.run(
            ["nm", "-C", "--defined-only", str(path)], capture_output=True, text=True, check=True
        ).stdout
        assert not re.findall(r"^.* [WVu] .*$", listing, re.MULTILINE), path.name


@pytest.mark.skipif(sys.platform != "linux", reason="reads ELF")
def test_the_native_module_needs_only_the_system():
    import pushforward._native as native

    if not shutil.which("readelf"):
        pytest.skip("needs binutils")
    listing = subprocess.run(
        ["readelf", "-d", native.__file__], capture_output=True, text=True, check=True
    ).stdout
    needed = set(re.findall(r"NEEDED.*\[(.+?)\]", listing))
    system = {"libstdc++.so.6", "libm.so.6", "libgcc_s.so.1", "libc.so.6", "libpthread.so.0"}
    assert needed - system - {"ld-linux-x86-64.so.2", "ld-linux-aarch64.so.1"} == set()
    assert "RPATH" not in listing
    assert "RUNPATH" not in listing


def test_import_is_light():
    script = (
        "import torch, sys; before = set(sys.modules); import pushforward;"
        "print(*sorted({m.split('.')[0] for m in set(sys.modules) - before}))"
    )
    out = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    heavy = {"tqdm", "matplotlib", "sklearn", "scipy", "jax", "pandas", "zarr", "xarray", "arviz"}
    assert heavy.isdisjoint(out.stdout.split())


def test_unknown_cpu_level_is_a_clear_error():
    out = subprocess.run(
        [sys.executable, "-c", "import pushforward"],
        env={**os.environ, "PUSHFORWARD_CPU_LEVEL": "v9"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert out.returncode != 0
    assert "PUSHFORWARD_CPU_LEVEL=v9" in out.stderr


LEVEL_DIGEST = """
import hashlib, sys, torch, warnings
sys.path.insert(0, sys.argv[1])
import pushforward as pf
from conftest import ZOO
print(pf.build_info()["CPU level"])
for name, law in ZOO.items():
    for dtype in (torch.float32, torch.float64):
        x = law.sample(45, seed=1).to(dtype)
        chains = pf.sample(law, pf.Langevin(0.01), x, n_steps=12, thin=3, seed=2)
        digest = hashlib.sha256()
        for t in (chains.draws, chains.log_density, chains.x, chains.mean, chains.var, law.score(x)):
            digest.update(t.contiguous().numpy().tobytes())
        print(name, dtype, digest.hexdigest())
process = pf.diffusion.OrnsteinUhlenbeck()
x = pf.random.normal(9, 50, seed=1)
y = process.diffuse(x, torch.linspace(0, 2, 9), seed=2)
z = pf.diffusion.reverse(lambda x, t: -x, process, y, times=[2, 1, 0.5, 0], seed=3)
print(hashlib.sha256(y.numpy().tobytes() + z.numpy().tobytes()).hexdigest())
"""


def test_cpu_levels_agree_bit_for_bit():
    digests = {}
    for level in ("baseline", "v3", "v4"):
        out = subprocess.run(
            [sys.executable, "-c", LEVEL_DIGEST, str(ROOT / "tests")],
            env={**os.environ, "PUSHFORWARD_CPU_LEVEL": level},
            capture_output=True,
            text=True,
            check=False,
        )
        if out.returncode != 0:
            assert "is not a level of this processor" in out.stderr, out.stderr
            continue
        first, _, rest = out.stdout.partition("\n")
        assert first == level
        digests[level] = rest
    assert len(set(digests.values())) == 1, digests
    if pf.build_info()["CPU level"] != "baseline":
        assert len(digests) > 1


def test_docstring_examples_run():
    import doctest
    import importlib
    import pkgutil

    # Documented names only: the demo and the command line are programs.
    attempted = 0
    for info in pkgutil.walk_packages(pf.__path__, "pushforward."):
        if info.name.split(".")[1] in ("_native", "demo", "cli", "__main__"):
            continue
        result = doctest.testmod(importlib.import_module(info.name))
        assert result.failed == 0, info.name
        attempted += result.attempted
    assert attempted > 80


def test_public_names_are_documented_with_an_example():
    for module in (pf, pf.ops, pf.random, pf.targets, pf.diffusion, pf.nets):
        for name in module.__all__:
            value = getattr(module, name)
            if not callable(value) or name in ("NativeTarget", "Target", "Chains"):
                continue
            text = value.__doc__ or ""
            assert text, name
            assert ">>>" in text or name == "log_density_and_score", name
