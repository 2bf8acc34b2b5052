# SPDX-License-Identifier: Apache-2.0
"""What a store of draws refuses: other runs, bad arguments, bad draws, foreign files."""

import json
import subprocess
import sys

import pytest
import torch

from pushforward.storage import DrawStore
from stores import holds, made, run_of

zarr = pytest.importorskip("zarr", minversion="3.1.3")


@pytest.fixture
def path(tmp_path):
    return tmp_path / "draws.zarr"


def test_nothing_is_ever_overwritten(path, tmp_path):
    made(path).close()
    before = {p: p.read_bytes() for p in path.rglob("*") if p.is_file()}
    file, link, empty = tmp_path / "file", tmp_path / "link", tmp_path / "empty"
    file.write_text("mine")
    link.symlink_to(tmp_path / "nowhere")
    empty.mkdir()
    for taken in (path, file, link, empty):
        with pytest.raises(ValueError, match="expected one where there is nothing"):
            made(taken)
    assert {p: p.read_bytes() for p in path.rglob("*") if p.is_file()} == before
    assert file.read_text() == "mine"


def test_only_a_path_is_a_path(path):
    for bad in (str(path), None, 3, b"x"):
        with pytest.raises(TypeError, match=r"path: expected a pathlib\.Path, got"):
            made(bad)
        with pytest.raises(TypeError, match=r"path: expected a pathlib\.Path, got"):
            DrawStore.open(bad)


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"n_chains": 4}, "n_chains: the store has 3, this call has 4"),
        ({"event": (5,)}, r"event\[0\]: the store has 4, this call has 5"),
        ({"event": (2, 2)}, r"event: the store has \[4\], this call has \[2, 2\]"),
        ({"dtype": torch.float64}, 'dtype: the store has "float32", this call has "float64"'),
        ({"names": ["a", "b", "c", "d"]}, "names: the store has null, this call has"),
        ({"n_kept": 49}, "n_kept: the store has 50, this call has 49"),
        ({"attributes": {"seed": 4}}, "attributes.seed: the store has 3, this call has 4"),
        (
            {"attributes": {}, "n_chains": 2},
            "attributes.seed: the store has 3, this call has nothing; n_chains: the store has 3",
        ),
    ],
)
def test_a_resumed_store_must_be_the_same(path, given, words):
    made(path, attributes={"seed": 3}).close()
    same = {"n_kept": 50, "n_chains": 3, "event": [4], "dtype": torch.float32,
            "attributes": {"seed": 3}}  # fmt: skip
    DrawStore.open(path, **same)
    with pytest.raises(ValueError, match=words) as caught:
        DrawStore.open(path, **{**same, **given})
    assert str(path) in str(caught.value)


@pytest.mark.parametrize(
    ("given", "error", "words"),
    [
        ({"n_kept": -1}, ValueError, "n_kept: expected"),
        ({"n_chains": 1.5}, TypeError, "n_chains: expected"),
        ({"event": 3}, TypeError, "event: expected a shape, got int"),
        ({"event": (-1,)}, ValueError, "event: expected"),
        ({"dtype": torch.bfloat16}, TypeError, "dtype: expected float16, float32, float64 or int8"),
        ({"dtype": "float32"}, TypeError, "dtype: expected"),
        ({"names": {"a": (3,)}}, ValueError, "names: expected 4 entries in all"),
        ({"names": {"a": (2, 2), "b": (0, 9)}}, None, ""),
        ({"names": "abcd"}, TypeError, "names: expected a dict or a list, got str"),
        ({"names": ["a", "a", "b", "c"]}, ValueError, "names: expected names that differ"),
        ({"names": {1: (4,)}}, TypeError, "names: expected names, got 1"),
        *(
            ({"names": {bad: (4,)}}, ValueError, "names: expected a name that a variable can have")
            for bad in (
                "",
                "a/b",
                "..",
                ".a",
                "__a",
                "draw",
                "chain",
                "a_dim_0",
                "a\0",
                "zarr.json",
            )
        ),
        ({"attributes": {"a": torch.ones(1)}}, ValueError, "attributes.a: expected what JSON"),
        ({"attributes": {"pushforward": 1}}, ValueError, "attributes: expected other names"),
        ({"attributes": [1]}, TypeError, "attributes: expected a dict"),
    ],
)
def test_bad_arguments(path, given, error, words):
    if error is None:
        made(path, **given).close()
        return
    with pytest.raises(error, match=words):
        made(path, **given)
    assert not path.exists()


@pytest.mark.parametrize(
    ("draws", "log_density", "error", "words"),
    [
        ([1.0], torch.ones(1, 3), TypeError, "draws: expected a torch.Tensor, got list"),
        (
            torch.ones(1, 3, 4).double(),
            torch.ones(1, 3),
            TypeError,
            "draws: expected torch.float32",
        ),
        (torch.ones(1, 3, 4), torch.ones(1, 3).int(), TypeError, "log_density: expected torch.f"),
        (torch.ones(3, 4), torch.ones(3), ValueError, r"draws: expected shape \(n, 3, 4\)"),
        (torch.ones(1, 2, 4), torch.ones(1, 3), ValueError, r"draws: expected shape \(n, 3, 4\)"),
        (
            torch.ones(1, 3, 4),
            torch.ones(1, 3, 1),
            ValueError,
            r"log_density: expected shape \(n, 3\)",
        ),
        (torch.ones(2, 3, 4), torch.ones(1, 3), ValueError, "log_density: expected 2 rows"),
        (torch.ones(51, 3, 4), torch.ones(51, 3), ValueError, "at most 50 more draws, got 51"),
    ],
)
def test_bad_draws(path, draws, log_density, error, words):
    with made(path) as store:
        with pytest.raises(error, match=words):
            store.append(draws, log_density)
        store.append(*run_of(2))
    assert holds(store, 2)


def test_bad_ranges(path):
    with made(path) as store:
        store.append(*run_of(5))
        store.flush()
        for n in (6, -1):
            with pytest.raises(ValueError, match="n: expected"):
                store.truncate(n)
        for start, stop in [(0, 6), (4, 3), (6, None)]:
            with pytest.raises(ValueError, match="expected 0 <= start <= stop <= 5"):
                store.read(start, stop)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda root: b"{", "expected a store of draws"),
        (lambda root: b"[]", "expected a store of draws"),
        (lambda root: {**root, "attributes": {}}, "expected a store of draws"),
        (lambda root: edited(root, format="other"), "expected a store of draws"),
        (lambda root: edited(root, format_version=2), "format version 2.*reads 1"),
        (lambda root: edited(root, n_written=51), "is damaged .*at most 50"),
        (lambda root: edited(root, n_written="3"), "is damaged"),
        (lambda root: edited(root, n_chains=2), "is damaged .*expected shape"),
        (lambda root: edited(root, n_chunk=7), "is damaged .*expected shape"),
        (lambda root: edited(root, dtype="load"), "is damaged"),
        (lambda root: edited(root, names=[["y", [4]]]), "is damaged"),
        (lambda root: edited(root, event=None), "is damaged"),
    ],
)
def test_foreign_and_damaged_stores_are_refused(path, change, words):
    made(path).close()
    root = change(json.loads((path / "zarr.json").read_bytes()))
    (path / "zarr.json").write_bytes(root if isinstance(root, bytes) else json.dumps(root).encode())
    with pytest.raises(ValueError, match=words) as caught:
        DrawStore.open(path)
    assert str(path) in str(caught.value)


def edited(root, **facts):
    mine = {**root["attributes"]["pushforward"], **facts}
    return {**root, "attributes": {**root["attributes"], "pushforward": mine}}


def test_what_is_no_store_is_refused(path, tmp_path):
    with pytest.raises(FileNotFoundError, match=r"draws\.zarr"):
        DrawStore.open(path)
    with pytest.raises(ValueError, match=r"got no zarr\.json in it"):
        DrawStore.open(tmp_path)
    zarr.create_group(path)
    with pytest.raises(ValueError, match="expected a store of draws"):
        DrawStore.open(path)


def test_without_zarr_the_error_says_what_to_install(path, monkeypatch):
    monkeypatch.setattr(zarr, "__version__", "2.18.3")
    with pytest.raises(ImportError, match=r"needs Zarr 3\.1\.3, got 2\.18\.3"):
        made(path)
    monkeypatch.setitem(sys.modules, "zarr", None)
    with pytest.raises(ImportError, match=r"pip install pushforward\[store\]"):
        made(path)


def test_zarr_is_imported_by_nobody_who_does_not_need_it():
    script = "import sys, pushforward.storage; print('zarr' in sys.modules)"
    out = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "False"
