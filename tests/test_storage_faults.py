# SPDX-License-Identifier: Apache-2.0
"""Stores of draws whose writer is killed or whose disk is full: whole draws, and no others."""

import os
import shutil
import subprocess
import sys

import pytest

from pushforward.storage import DrawStore, StoreFull, layout
from stores import holds, made, opened, run_of

pytest.importorskip("zarr", minversion="3.1.3")


@pytest.fixture
def path(tmp_path):
    return tmp_path / "draws.zarr"


KILLER = """
import os, signal, sys, time, torch, xarray, zarr
from pathlib import Path
sys.path.insert(0, sys.argv[1])
import stores as t
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
import stores as t
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
