# SPDX-License-Identifier: Apache-2.0
"""Stores of draws: what goes in comes out, whoever is killed and however full the disk is."""

import json
import os
import shutil
import subprocess
import sys
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch

import pushforward as pf
from pushforward.storage import DrawStore, StoreFull, layout

zarr = pytest.importorskip("zarr", minversion="3.1.3")


@pytest.fixture
def path(tmp_path):
    return tmp_path / "draws.zarr"


@pytest.fixture
def short(monkeypatch):
    """Chunks of a few hundred bytes, so that small stores have many."""
    monkeypatch.setattr(layout, "_CHUNK", 400)
    monkeypatch.setattr(layout, "_LARGEST_CHUNK", 1600)


def run_of(n, n_chains=3, event=(4,), dtype=torch.float32, start=0):
    """Draws ``start .. start + n - 1`` of an endless run, each number another."""
    n_event = int(np.prod(event))
    each = torch.arange(start, start + n, dtype=torch.float64).reshape(n, 1, 1)
    chain = torch.arange(n_chains).reshape(1, n_chains, 1) / 8
    draws = (each + chain + torch.arange(n_event) / 256).reshape(n, n_chains, *event)
    return draws.to(dtype), (-each - chain)[..., 0].to(dtype)


def made(path, n_kept=50, n_chains=3, event=(4,), dtype=torch.float32, **more):
    return DrawStore.create(
        path, n_kept=n_kept, n_chains=n_chains, event=event, dtype=dtype, **more
    )


def holds(store, n, **how):
    """Whether the store has the first ``n`` draws of the run and no others."""
    how = {"n_chains": store.n_chains, "event": store.event, "dtype": store.dtype, **how}
    draws, log_density = store.read()
    expected = run_of(n, **how)
    return (
        store.n_written == n
        and torch.equal(draws, expected[0])
        and torch.equal(log_density, expected[1])
        and draws.dtype == log_density.dtype == store.dtype
    )


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32, torch.float64])
@pytest.mark.parametrize("event", [(), (4,), (2, 3), (1, 2, 2)])
@pytest.mark.usefixtures("short")
def test_what_is_appended_is_read(path, dtype, event):
    with made(path, event=event, dtype=dtype) as store:
        at = 0
        for n in (1, 0, 7, 2, 20, 13, 7):
            store.append(*run_of(n, event=event, dtype=dtype, start=at))
            at += n
            assert at - store._layout.n_chunk < store.n_written <= at
            assert holds(store, store.n_written)
    assert holds(store, 50)
    assert holds(DrawStore.open(path), 50)
    draws, log_density = DrawStore.open(path).read(7, 19)
    assert torch.equal(draws, run_of(12, event=event, dtype=dtype, start=7)[0])
    assert torch.equal(log_density, run_of(12, event=event, dtype=dtype, start=7)[1])


@pytest.mark.parametrize(
    ("n_kept", "n_chains", "event"), [(0, 3, (4,)), (5, 0, (4,)), (5, 3, (0,))]
)
def test_nothing_is_legal(path, n_kept, n_chains, event):
    with made(path, n_kept=n_kept, n_chains=n_chains, event=event) as store:
        store.append(*run_of(n_kept, n_chains=n_chains, event=event))
    found = DrawStore.open(path)
    assert holds(found, n_kept)
    assert found.read()[0].shape == (n_kept, n_chains, *event)


def test_any_layout_of_memory_is_taken_and_none_is_changed(path):
    draws, log_density = run_of(6, event=(3, 2))
    kept = draws.clone()
    with made(path, event=(3, 2)) as store:
        store.append(draws.mT.contiguous().mT[:3], log_density.T.contiguous().T[:3])
        store.append(draws[3:].requires_grad_(), torch.nn.Parameter(log_density[3:]))
    assert holds(store, 6)
    assert torch.equal(draws.detach(), kept)


def test_chunks_are_of_one_to_sixteen_megabytes():
    for n_chains, event in [
        (1, (1,)),
        (4, (2,)),
        (1000, (32,)),
        (100_000, (64,)),
        (1, (4096, 4096)),
    ]:
        of = layout.Layout.of(10**7, n_chains, event, torch.float32, None)
        size = 4 * np.prod(of.chunk(event))
        assert 1 << 20 <= size <= 16 << 20, (n_chains, event)
    many = layout.Layout.of(10**7, 4, (1000,), torch.float32, [f"v{i}" for i in range(1000)])
    assert many.n_chunk * 4 * 4 * 1000 <= 64 << 20


@pytest.mark.usefixtures("short")
def test_a_large_draw_is_cut_along_chains_and_event(path):
    with made(path, n_kept=3, n_chains=7, event=(30, 30)) as store:
        store.append(*run_of(3, n_chains=7, event=(30, 30)))
    assert len(list((path / "posterior/x").glob("c.*"))) > 3 * 7
    assert holds(DrawStore.open(path), 3)


# ---- other people's readers ----------------------------------------------------------------------


def opened(path):
    return pytest.importorskip("xarray").open_datatree(path, engine="zarr")


@pytest.mark.usefixtures("short")
def test_xarray_and_arviz_read_it(path):
    names = {"mu": (2,), "tau": (), "omega": (1, 1)}
    store = made(path, names=names, attributes={"seed": 3, "kernel": {"step_size": 0.5}})
    store.append(*run_of(21))
    store.flush()  # and still open
    tree = opened(path)
    draws, log_density = (t.transpose(0, 1).numpy() for t in run_of(21))
    assert tree.attrs["seed"] == 3
    assert tree.attrs["kernel"] == {"step_size": 0.5}
    posterior = tree["posterior"]
    assert posterior["mu"].dims == ("chain", "draw", "mu_dim_0")
    assert np.array_equal(posterior["mu"], draws[..., :2])
    assert np.array_equal(posterior["tau"], draws[..., 2])
    assert np.array_equal(posterior["omega"][..., 0, 0], draws[..., 3])
    assert np.array_equal(tree["sample_stats"]["lp"], log_density)
    for group in (posterior, tree["sample_stats"]):
        assert np.array_equal(group["draw"], np.arange(21))
        assert np.array_equal(group["chain"], np.arange(3))
    store.close()
    arviz = subprocess.run(
        [sys.executable, "-c", ARVIZ, str(path)], capture_output=True, text=True, check=False
    )
    if "ModuleNotFoundError" in arviz.stderr:
        pytest.skip("needs arviz")
    assert arviz.stdout.split() == ["mu[0]", "mu[1]", "omega[0,", "0]", "tau"], arviz.stderr


ARVIZ = """
import sys, warnings
warnings.simplefilter("ignore")
import arviz, xarray
tree = xarray.open_datatree(sys.argv[1], engine="zarr")
data = arviz.from_datatree(tree) if hasattr(arviz, "from_datatree") else tree
print(*sorted(arviz.summary(data).index))
"""


@pytest.mark.usefixtures("short")
def test_zarr_alone_reads_it_after_close(path):
    with made(path) as store:
        store.append(*run_of(21))
    group = zarr.open_group(path, mode="r")
    assert group["posterior/x"].shape == (3, 21, 4)
    plain = zarr.open_array(path / "posterior" / "x", mode="r")
    assert np.array_equal(plain[:], run_of(21)[0].transpose(0, 1))


# ---- going on ------------------------------------------------------------------------------------


@pytest.mark.parametrize("cut", [0, 1, 8, 16, 20, 21])
@pytest.mark.usefixtures("short")
def test_a_run_goes_on_from_a_checkpoint(path, cut):
    with made(path) as store:
        store.append(*run_of(21))
    with DrawStore.open(path, n_kept=50) as store:
        store.truncate(cut)
        assert holds(store, cut)
        assert opened(path)["posterior"].sizes["draw"] == cut
        store.append(*run_of(50 - cut, start=cut))
    assert holds(DrawStore.open(path), 50)


@pytest.mark.usefixtures("short")
def test_truncation_leaves_nothing_behind(path):
    with made(path) as store:
        store.append(*run_of(50))
        store.truncate(9)
        whole = zarr.open_array(path / "posterior" / "x", mode="r")[:]
        assert np.isnan(whole[:, 9:]).all()
        assert not np.isnan(whole[:, :9]).any()
        assert store.n_written == 9
        store.append(*run_of(2, start=9))  # in memory
        store.truncate(9)  # and forgotten
        store.append(*run_of(3, start=9))
    assert holds(DrawStore.open(path), 12)


@pytest.mark.usefixtures("short")
def test_a_store_may_grow(path):
    with made(path, n_kept=5) as store:
        store.append(*run_of(5))
        with pytest.raises(ValueError, match="draws: expected at most 0 more draws, got 1"):
            store.append(*run_of(1))
    with DrawStore.open(path, n_kept=40) as store:
        store.append(*run_of(28, start=5))
    assert holds(DrawStore.open(path), 33)
    assert DrawStore.open(path).n_kept == 40
    assert np.array_equal(opened(path)["posterior"]["draw"], np.arange(33))


def test_flush_brings_everything_to_disk(path):
    store = made(path)
    for at in range(5):
        store.append(*run_of(1, start=at))
        assert store.n_written == at
        store.flush()
        assert holds(DrawStore.open(path), at + 1)
    store.close()
    store.close()
    with pytest.raises(ValueError, match="expected an open store, got a closed one"):
        store.append(*run_of(1))
    assert holds(store, 5)


def test_one_writer_at_a_time(path):
    store = made(path)
    other = DrawStore.open(path)
    with pytest.raises(BlockingIOError, match="another run is writing it") as caught:
        other.append(*run_of(1))
    assert str(path) in str(caught.value)
    store.append(*run_of(2))
    store.close()
    other.append(*run_of(1, start=2))  # after the two that it had not seen
    other.close()
    assert holds(DrawStore.open(path), 3)


# ---- refusals ------------------------------------------------------------------------------------


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
        ({"dtype": torch.bfloat16}, TypeError, "dtype: expected float16, float32 or float64"),
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


@pytest.mark.usefixtures("short")
def test_damage_is_found(path):
    with made(path) as store:
        store.append(*run_of(50))
    chunk = next((path / "posterior" / "x").glob("c.*"))
    content = bytearray(chunk.read_bytes())
    content[3] ^= 1
    chunk.write_bytes(content)
    with pytest.raises(ValueError, match="a chunk is damaged"):
        DrawStore.open(path).read()
    assert zlib.crc32(content) != 0  # the file itself is still there


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


# ---- killed, full --------------------------------------------------------------------------------

KILLER = """
import os, signal, sys, time, torch, xarray, zarr
from pathlib import Path
sys.path.insert(0, sys.argv[1])
import test_storage as t
from pushforward.storage import DrawStore, disk, layout, store

torch.set_num_threads(1)  # OpenMP's threads do not live on in a forked process
path, how = Path(sys.argv[2]), sys.argv[3]
layout._CHUNK = 40_000  # 25 draws
t.made(path, n_kept=10**5, n_chains=4, event=(100,)).close()
if how == "early":  # the broken twin: counts a chunk before it is written
    def write(self):
        n = self._start + self._fill
        store.record(self.path, self._layout, n, self.attributes)
        self._write_chunk()
        self._n_written = n
        if self._fill == self._layout.n_chunk:
            self._start, self._fill = n, 0
    DrawStore._write = write
seen, begun = 0, 0
for i in range(int(sys.argv[4])):
    ready, say = os.pipe()
    writer = os.fork()  # a fresh one each time: Zarr's thread does not live on in a forked process
    if writer == 0:
        s = DrawStore.open(path)
        at = s.n_written
        if i % 2:
            at -= min(at, 7)
            s.truncate(at)
        os.write(say, b"x")
        while True:
            s.append(*t.run_of(17, n_chains=4, event=(100,), start=at))
            at += 17
            if at % 3 == 0:
                s.flush()
    os.read(ready, 1)
    time.sleep(0.007 + 0.0053 * i)
    os.kill(writer, signal.SIGKILL)
    os.waitpid(writer, 0)
    if os.fork() == 0:
        s = DrawStore.open(path)
        assert t.holds(s, s.n_written), s
        tree = xarray.open_datatree(path, engine="zarr")
        assert tree["posterior"].sizes["draw"] == tree["sample_stats"].sizes["draw"] == s.n_written
        assert not tree["posterior"]["x"].isnull().any()
        os._exit(0 if s.n_written >= seen - 7 else 3)
    pid, status = os.wait()
    assert status == 0, "what a killed writer left"
    n = disk.read_root(path)[1]
    begun += n > seen
    seen = n
print(seen, begun)
"""


def killed(path, how, rounds):
    return subprocess.run(
        [sys.executable, "-c", KILLER, os.path.dirname(__file__), str(path), how, str(rounds)],
        capture_output=True,
        text=True,
        check=False,
    )


def test_a_killed_writer_leaves_whole_draws(path):
    pytest.importorskip("xarray")
    run = killed(path, "whole", 16)
    assert run.returncode == 0, run.stderr
    written, begun = map(int, run.stdout.split())
    assert begun > 0  # the writers were at work
    with DrawStore.open(path, n_kept=10**5 + 1) as store:
        store.append(*run_of(5, n_chains=4, event=(100,), start=written))
    assert holds(store, written + 5)
    assert not list(path.rglob("*.part*"))


def test_a_writer_that_counts_too_early_fails_the_same_test(path):
    pytest.importorskip("xarray")
    run = killed(path, "early", 40)
    assert run.returncode == 1
    assert "AssertionError: what a killed writer left" in run.stderr


LIMITED = """
import resource, signal, sys, torch
from pathlib import Path
sys.path.insert(0, sys.argv[1])
import test_storage as t
from pushforward.storage import StoreFull, layout

layout._CHUNK = 40_000
path = Path(sys.argv[2])
store = t.made(path, n_kept=1000, n_chains=4, event=(100,))
store.append(*t.run_of(60, n_chains=4, event=(100,)))
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, -1))
try:
    store.append(*t.run_of(60, n_chains=4, event=(100,), start=60))
except StoreFull as error:
    print(error)
print(store.n_written)
store.close()
"""


def test_a_limit_of_file_size_is_a_full_disk(path):
    out = subprocess.run(
        [sys.executable, "-c", LIMITED, os.path.dirname(__file__), str(path)],
        capture_output=True,
        text=True,
        check=True,
    ).stdout.splitlines()
    assert out == [f"[Errno 27] store {path}: the disk is full: File too large", "50"]
    assert holds(DrawStore.open(path), 50)


@pytest.fixture
def small_disk(tmp_path):
    """A disk of one megabyte."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(folder)]
    if not shutil.which("mount") or subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("needs the right to mount")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def test_a_full_disk_keeps_every_chunk_before(small_disk, monkeypatch):
    monkeypatch.setattr(layout, "_CHUNK", 40_000)
    path = small_disk / "draws.zarr"
    how = {"n_chains": 4, "event": (100,)}
    store, at = made(path, n_kept=10_000, **how), 0

    def fill():
        nonlocal at
        while True:
            store.append(*run_of(10, start=at, **how))
            at += 10

    with pytest.raises(StoreFull, match=f"store {path}: the disk is full: No space left"):
        fill()
    n = store.n_written
    assert n == at // 25 * 25 >= 400
    assert holds(store, n)
    with pytest.raises(StoreFull, match="the disk is full"):  # takes no more
        store.append(*run_of(1, **how))
    store.close()
    found = DrawStore.open(path)
    assert holds(found, n)
    assert opened(path)["posterior"].sizes["draw"] == n
    subprocess.run(["mount", "-o", "remount,size=3m", str(small_disk)], check=True)
    with found:
        found.append(*run_of(100, start=n, **how))
    assert holds(DrawStore.open(path), n + 100)


def test_no_room_for_a_store_leaves_nothing(small_disk):
    (small_disk / "rest").write_bytes(bytes((1 << 20) - 3 * 4096))
    with pytest.raises(StoreFull, match="the disk is full"):
        made(small_disk / "draws.zarr")
    assert os.listdir(small_disk) == ["rest"]


def test_a_folder_that_may_not_be_written(tmp_path):
    file = tmp_path / "file"
    file.write_text("")
    with pytest.raises(OSError, match=r"store .*draws\.zarr: ") as caught:
        made(file / "draws.zarr")
    assert not isinstance(caught.value, StoreFull)


# ---- with the driver's draws ---------------------------------------------------------------------


def test_a_sampled_run_comes_back_bit_for_bit(path):
    law = pf.targets.Gaussian(torch.zeros(2), scale=torch.ones(2))
    x = pf.random.normal(5, 2, seed=1)
    whole = pf.sample(law, pf.Langevin(0.1), x, n_steps=60, seed=2)
    with made(path, n_kept=60, n_chains=5, event=(2,), attributes={"seed": 2}) as store:
        step = 0
        while step < 60:
            chains = pf.sample(law, pf.Langevin(0.1), x, n_steps=20, first_step=step, seed=2)
            store.append(chains.draws, chains.log_density)
            x, step = chains.x, chains.next_step
    draws, log_density = DrawStore.open(Path(path), attributes={"seed": 2}).read()
    assert torch.equal(draws, whole.draws)
    assert torch.equal(log_density, whole.log_density)
