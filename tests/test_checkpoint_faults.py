# SPDX-License-Identifier: Apache-2.0
"""Checkpoints whose writer is killed, interrupted, not alone or out of space: the last whole one."""

import os
import subprocess
import sys
import threading

import pytest
import torch

from pushforward import checkpoint, files


@pytest.fixture
def path(tmp_path):
    return tmp_path / "run.safetensors"


KILLER = """
import os, signal, sys, time, torch
from pathlib import Path
from pushforward import checkpoint

def torn(path, parts):  # the broken twin: in place, piece by piece
    with path.open("wb", buffering=0) as file:
        content = b"".join(parts)
        for i in range(0, len(content), 256):
            file.write(content[i : i + 256])

torch.set_num_threads(1)  # OpenMP's threads do not live on in a forked process
path, k = Path(sys.argv[1]), 0
checkpoint.write(path, {"x": torch.zeros(300_000)}, {"k": 0})
if sys.argv[2] == "torn":
    checkpoint.write_atomically = torn
for i in range(30):
    writer = os.fork()
    if writer == 0:
        while True:
            k += 1
            checkpoint.write(path, {"x": torch.full((300_000,), float(k))}, {"k": k})
    time.sleep(0.011 + 0.0037 * i)
    os.kill(writer, signal.SIGKILL)
    os.waitpid(writer, 0)
    tensors, facts = checkpoint.read(path)
    assert facts["k"] >= k
    k = facts["k"]
    assert (tensors["x"] == k).all()
print(k)
"""


def killed(path, how):
    return subprocess.run(
        [sys.executable, "-c", KILLER, str(path), how], capture_output=True, text=True, check=False
    )


def test_a_killed_writer_leaves_a_whole_checkpoint(path):
    run = killed(path, "whole")
    assert run.returncode == 0, run.stderr
    assert int(run.stdout) > 5  # the writers were at work
    checkpoint.write(path, {}, {})
    assert os.listdir(path.parent) == [path.name]


def test_a_writer_in_place_fails_the_same_test(path):
    run = killed(path, "torn")
    assert run.returncode == 1
    assert f"ValueError: checkpoint {path}: " in run.stderr


def test_what_a_killed_writer_left_is_never_read_and_goes_with_the_next_write(path):
    checkpoint.write(path, {}, {"k": 1})
    rest = path.with_name(f".{path.name}.part")
    rest.write_bytes(b"half of a checkpoint" * 1000)
    assert checkpoint.read(path)[1] == {"k": 1}
    checkpoint.write(path, {}, {"k": 2})
    assert checkpoint.read(path)[1] == {"k": 2}
    assert os.listdir(path.parent) == [path.name]


def test_two_writers_of_one_path_do_not_mix(path):
    # Threads stand for two runs. One that comes second is told so; none ever writes a torn file.
    outcomes = []

    def work(k):
        for _ in range(30):
            try:
                checkpoint.write(path, {"x": torch.full((50_000,), float(k))}, {"k": k})
                outcomes.append(None)
            except BlockingIOError as error:
                outcomes.append(str(error))

    threads = [threading.Thread(target=work, args=(k,)) for k in (1, 2)]
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads):
        if path.exists():
            tensors, facts = checkpoint.read(path)
            assert torch.equal(tensors["x"], torch.full((50_000,), float(facts["k"])))
    for thread in threads:
        thread.join()
    refused = {text for text in outcomes if text}
    assert None in outcomes
    assert all("another run is writing it" in text for text in refused)
    assert os.listdir(path.parent) == [path.name]


FULL = """
import os, resource, signal, sys, torch
from pushforward import checkpoint
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
try:
    checkpoint.write(sys.argv[1], {"x": torch.zeros(100_000)}, {"k": 2})
except OSError as error:
    print(type(error).__name__, error.errno, error)
"""


def test_a_full_disk_keeps_the_old_checkpoint(path):
    checkpoint.write(path, {"x": torch.ones(2)}, {"k": 1})
    out = subprocess.run(
        [sys.executable, "-c", FULL, str(path)], capture_output=True, text=True, check=True
    ).stdout
    assert f"checkpoint {path}: could not be written: File too large" in out
    assert checkpoint.read(path)[1] == {"k": 1}
    assert os.listdir(path.parent) == [path.name]


def test_an_exception_on_the_way_keeps_the_old_checkpoint(path, monkeypatch):
    checkpoint.write(path, {}, {"k": 1})

    def interrupted(handle):
        raise KeyboardInterrupt

    monkeypatch.setattr(files.os, "fsync", interrupted)
    with pytest.raises(KeyboardInterrupt):
        checkpoint.write(path, {}, {"k": 2})
    monkeypatch.undo()
    assert checkpoint.read(path)[1] == {"k": 1}
    assert os.listdir(path.parent) == [path.name]


def test_a_folder_that_goes_away_on_the_way_is_an_error(tmp_path, monkeypatch):
    folder = tmp_path / "folder"
    folder.mkdir()
    monkeypatch.setattr(files.os, "fsync", lambda handle: folder.rename(tmp_path / "gone"))
    with pytest.raises(FileNotFoundError, match="could not be written"):
        checkpoint.write(folder / "run", {}, {})
