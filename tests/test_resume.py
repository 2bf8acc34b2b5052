# SPDX-License-Identifier: Apache-2.0
"""Checkpoints of runs: killed at any moment and resumed, a run returns the same bits."""

import fcntl
import os
import random
import shutil
import signal
import subprocess
import sys
import textwrap
import time

import pytest
import torch

import pushforward as pf
from conftest import ZOO
from pushforward import checkpoint, pacing

LAW = ZOO["gaussian-plane"]
TORCH = pf.Energy(lambda x: -LAW.torch_log_density(x))
KERNELS = {
    "langevin": (pf.Langevin(0.05), 0),
    "underdamped": (pf.UnderdampedLangevin(0.2, 1.0), 0),
    "underdamped, tuned": (pf.UnderdampedLangevin(friction=0.5), 40),
    "annealed": (pf.AnnealedLangevin(0.05, torch.linspace(0.5, 2.0, 20)), 0),
    "autoregressive": (pf.MetropolisHastings(pf.mcmc.Autoregressive(0.7, 1.2)), 0),
    "random-walk": (pf.RandomWalk(), 40),
    "mala": (pf.MALA(), 40),
    "hmc": (pf.HMC(n_leapfrog=3), 40),
    "nuts": (pf.NUTS(), 40),
}


def start(n=9):
    return LAW.sample(n, seed=0)


def same(a, b):
    names = ("x", "draws", "log_density", "mean", "var", "accept_rate", "ess", "rhat", "cov")
    pairs = [(getattr(a, k), getattr(b, k)) for k in names]
    return all(
        (p is None and q is None) or torch.equal(p.nan_to_num(), q.nan_to_num()) for p, q in pairs
    )


class Stop(Exception):
    pass


@pytest.mark.parametrize("target", [LAW, TORCH], ids=["native", "torch"])
@pytest.mark.parametrize("name", KERNELS)
@pytest.mark.parametrize("stop_after", [10, 45, 70, 100])
def test_a_run_that_raised_goes_on_bit_for_bit(target, name, stop_after, tmp_path):
    kernel, warmup = KERNELS[name]
    call = {
        "warmup": warmup,
        "burn_in": 60 - warmup,
        "n_steps": 60,
        "thin": 2,
        "covariance": True,
        "seed": 4,
    }
    whole = pf.sample(target, kernel, start(), **call)

    def callback(step, x):
        if step >= stop_after:
            raise Stop

    path = tmp_path / "run.safetensors"
    with pytest.raises(Stop):
        pf.sample(target, kernel, start(), checkpoint=path, every=5, callback=callback, **call)
    assert path.exists()
    resumed = pf.sample(target, kernel, start(), checkpoint=path, every=5, **call)
    assert same(whole, resumed)
    assert resumed.next_step == 120
    finished = pf.sample(target, kernel, start(), checkpoint=path, every=5, **call)
    assert same(whole, finished)
    unseeded = pf.sample(
        target, kernel, start(), checkpoint=path, every=5, **{**call, "seed": None}
    )
    assert same(whole, unseeded)


@pytest.mark.parametrize("target", [LAW, TORCH], ids=["native", "torch"])
@pytest.mark.parametrize("name", KERNELS)
@pytest.mark.parametrize("stop_after", [1, 45, 61, 100])
def test_a_run_that_was_stopped_goes_on_bit_for_bit(target, name, stop_after, tmp_path):
    kernel, warmup = KERNELS[name]
    call = {"warmup": warmup, "burn_in": 60 - warmup, "n_steps": 60, "covariance": True, "seed": 4}
    whole = pf.sample(target, kernel, start(), **call)
    call["checkpoint"] = tmp_path / "run.safetensors"  # and no `every`
    stopped = pf.sample(
        target, kernel, start(), callback=lambda step, x: step >= stop_after, **call
    )
    taken = []
    resumed = pf.sample(
        target, kernel, start(), callback=lambda step, x: taken.append(step), **call
    )
    assert same(whole, resumed)
    assert not resumed.interrupted
    if stopped.interrupted:  # unless the last chunk was that long
        assert taken[0] == stopped.next_step + 1  # where it stopped, with a first chunk of a step
    else:
        assert not taken


@pytest.mark.parametrize("phases", [{"n_steps": 9}, {"warmup": 25, "burn_in": 3, "n_steps": 6}])
@pytest.mark.parametrize("target", [LAW, TORCH], ids=["native", "torch"])
@pytest.mark.parametrize("disk", [False, True], ids=["memory", "disk"])
@pytest.mark.parametrize("how", ["callback", "ctrl-c"])
def test_a_run_that_is_stopped_after_each_step_goes_on(
    phases, target, disk, how, tmp_path, monkeypatch
):
    monkeypatch.setattr(pacing, "SECONDS", 0.0)  # the first chunk is one step, too
    call = {**phases, "seed": 4, "covariance": True}
    whole = pf.sample(target, pf.MALA(0.3), start(), **call)
    call |= {"checkpoint": tmp_path / "run", "every": 1000}
    if disk:
        store = pytest.importorskip("pushforward.storage").DrawStore
        pytest.importorskip("zarr")
        call["store"] = tmp_path / "draws.zarr"

    def stop(step, x):
        if how == "callback":
            return True
        os.kill(os.getpid(), signal.SIGINT)
        return False

    total = sum(phases.values())
    for done in range(1, total + 1):
        chains = pf.sample(target, pf.MALA(0.3), start(), callback=stop, **call)
        assert chains.next_step == done
    chains = pf.sample(target, pf.MALA(0.3), start(), **call)
    if disk:
        draws, log_density = store.open(tmp_path / "draws.zarr").read()
        assert torch.equal(draws, whole.draws)
        assert torch.equal(log_density, whole.log_density)
        assert torch.equal(chains.mean, whole.mean)
        assert torch.equal(chains.cov, whole.cov)
    else:
        assert same(chains, whole)


@pytest.mark.parametrize("store", ["draws", "stats", "last", "disk"])
@pytest.mark.parametrize(
    ("target", "kernel", "x"),
    [
        (LAW, pf.MALA(0.3), torch.zeros(0, 2)),
        (TORCH, pf.NUTS(0.3), torch.zeros(0, 2)),
        (TORCH, pf.MALA(0.3), torch.zeros(2, 0).T),
        (
            pf.lattice.Ising((4, 6), temperature=2.5),
            pf.lattice.Metropolis(),
            torch.ones(0, 4, 6, dtype=torch.int8),
        ),
        (pf.lattice.Phi4((4, 4), kappa=0.2, lam=0.02), pf.MALA(0.1), torch.zeros(0, 4, 4)),
    ],
    ids=["native", "nuts", "torch", "ising", "phi4"],
)
def test_zero_chains_have_checkpoints_too(target, kernel, x, store, tmp_path):
    if store == "disk":
        pytest.importorskip("zarr")
        store = tmp_path / "draws.zarr"
    call = {"n_steps": 20, "burn_in": 3, "every": 7, "checkpoint": tmp_path / "run", "seed": 1}
    call |= {"store": store, "covariance": True, "quantiles": True}
    pf.sample(target, kernel, x, callback=lambda step, x: step >= 10, **call)
    for _ in "ab":
        chains = pf.sample(target, kernel, x, **call)
        assert (chains.n_steps, chains.x.shape) == (20, x.shape)


@pytest.mark.parametrize(
    ("store", "kernel"), [("draws", "HMC(n_leapfrog=4)"), ("disk", "NUTS()"), ("draws", "NUTS()")]
)
def test_a_killed_run_goes_on_bit_for_bit(store, kernel, tmp_path):
    if store == "disk":
        pytest.importorskip("zarr")
    script = textwrap.dedent(
        """
        import sys, pathlib, torch, pushforward as pf
        law = pf.targets.Gaussian(torch.ones(2), scale=torch.tensor([1.0, 0.3]))
        store = "draws" if sys.argv[2] == "draws" else pathlib.Path(sys.argv[2])
        chains = pf.sample(
            lambda x: law.torch_log_density(x), pf.KERNEL, law.sample(20, seed=0),
            warmup=60, n_steps=600, thin=2, store=store, checkpoint=sys.argv[1], every=7, seed=3,
            callback=lambda step, x: print(step, flush=True),
        )
        if store == "draws":
            draws = chains.draws
        else:
            from pushforward.storage import DrawStore
            draws = DrawStore.open(store).read()[0]
        torch.save([draws, chains.mean, chains.x], sys.argv[3])
        """
    ).replace("KERNEL", kernel)

    def run(folder, kills):
        folder.mkdir()
        disk = "draws" if store == "draws" else str(folder / "draws.zarr")
        out = folder / "result.pt"
        arguments = [str(folder / "run.safetensors"), disk, str(out)]
        rng = random.Random(5)
        for _ in range(kills):
            process = subprocess.Popen(
                [sys.executable, "-c", script, *arguments], stdout=subprocess.PIPE, text=True
            )
            process.stdout.readline()  # it takes steps now
            time.sleep(rng.uniform(0.0, 0.6))
            os.kill(process.pid, signal.SIGKILL)
            process.communicate()
        subprocess.run(
            [sys.executable, "-c", script, *arguments], check=True, stdout=subprocess.DEVNULL
        )
        return torch.load(out)

    whole, killed = run(tmp_path / "whole", 0), run(tmp_path / "killed", 4)
    assert all(torch.equal(a, b) for a, b in zip(whole, killed, strict=True))


@pytest.mark.parametrize(("burn_in", "kills"), [(5, (1, 6, 7, 12)), (0, (1, 2, 3, 12))])
def test_a_store_goes_on_wherever_its_run_was_killed(burn_in, kills, tmp_path):
    # Above all before its first checkpoint, and between the store's making and the next one.
    pytest.importorskip("zarr")
    script = textwrap.dedent(
        """
        import os, pathlib, signal, sys, torch, pushforward as pf
        from pushforward.storage import DrawStore
        folder = pathlib.Path(sys.argv[1])
        seen = []

        class Law:
            def log_density(self, x):
                seen.append(1)
                if len(seen) == int(sys.argv[2]):
                    os.kill(os.getpid(), signal.SIGKILL)
                return -0.5 * x.square().sum(1)

        torch.set_num_threads(1)
        pf.sample(
            Law(), pf.Langevin(0.2), torch.ones(5, 2), burn_in=BURN_IN, n_steps=20, seed=3,
            every=7, store=folder / "draws.zarr", checkpoint=folder / "run",
        )
        torch.save(DrawStore.open(folder / "draws.zarr").read()[0], folder / "draws.pt")
        """
    ).replace("BURN_IN", str(burn_in))

    def run(folder, calls):
        return subprocess.run([sys.executable, "-c", script, str(folder), str(calls)]).returncode

    folders = {n: tmp_path / str(n) for n in (0, *kills)}
    for n, folder in folders.items():
        folder.mkdir()
        if n > 0:
            assert run(folder, n) == -signal.SIGKILL
        assert run(folder, 0) == 0
    whole, *killed = (torch.load(folder / "draws.pt") for folder in folders.values())
    assert whole.shape == (20, 5, 2)
    assert all(torch.equal(draws, whole) for draws in killed)


def test_a_store_of_somebody_else_is_left_alone(tmp_path):
    pytest.importorskip("zarr")
    call = {"n_steps": 10, "seed": 1, "store": tmp_path / "draws.zarr"}
    pf.sample(LAW, pf.MALA(0.3), start(), **call)
    for _ in "ab":
        with pytest.raises(ValueError, match="which exists"):
            pf.sample(LAW, pf.MALA(0.3), start(), checkpoint=tmp_path / "run", **call)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("stop_after", [8, 1000], ids=["unfinished", "finished"])
def test_a_store_that_is_gone_is_named(stop_after, tmp_path):
    pytest.importorskip("zarr")
    store, path = tmp_path / "draws.zarr", tmp_path / "run"
    call = {"n_steps": 200, "thin": 2, "seed": 1, "store": store, "checkpoint": path}

    def again(callback=None):
        return pf.sample(TORCH, pf.MALA(0.3), start(), callback=callback, **call)

    again(lambda step, x: step >= stop_after)
    before = path.read_bytes()
    store.rename(tmp_path / "elsewhere")
    with pytest.raises(ValueError, match=rf"store {store}: expected the \d+ draws .* no store"):
        again()
    assert {p.name for p in tmp_path.iterdir()} == {"run", "elsewhere"}
    pf.sample(TORCH, pf.MALA(0.3), start(), n_steps=4, thin=2, seed=1, store=store)  # fewer draws
    content = (store / "zarr.json").read_bytes()
    with pytest.raises(ValueError, match=rf"store {store}: expected the \d+ draws .* got 2"):
        again()
    assert (store / "zarr.json").read_bytes() == content
    assert path.read_bytes() == before
    store.rename(tmp_path / "other")
    (tmp_path / "elsewhere").rename(store)
    assert again().n_steps == 200


def test_a_store_without_draws_may_be_gone(tmp_path):
    pytest.importorskip("zarr")
    store = tmp_path / "draws.zarr"
    call = {"burn_in": 50, "n_steps": 20, "seed": 1, "store": store, "checkpoint": tmp_path / "run"}
    stopped = pf.sample(TORCH, pf.MALA(0.3), start(), callback=lambda step, x: True, **call)
    assert stopped.next_step == 1
    shutil.rmtree(store)
    assert pf.sample(TORCH, pf.MALA(0.3), start(), **call).n_steps == 20


def test_a_checkpoint_of_another_version_is_refused(tmp_path, monkeypatch):
    path = tmp_path / "run.safetensors"
    call = {"n_steps": 10, "seed": 1, "checkpoint": path}
    with monkeypatch.context() as patch:
        patch.setattr(checkpoint, "version", lambda name: "0.0.7")
        pf.sample(LAW, pf.MALA(0.3), start(), **call)
    before = path.read_bytes()
    with pytest.raises(ValueError, match=rf"by pushforward 0\.0\.7, .* {pf.__version__}"):
        pf.sample(LAW, pf.MALA(0.3), start(), **call)
    assert path.read_bytes() == before


def test_a_checkpoint_of_another_call_is_refused(tmp_path):
    path = tmp_path / "run.safetensors"
    call = {"n_steps": 10, "seed": 1, "checkpoint": path}
    pf.sample(LAW, pf.MALA(0.3), start(), **call)
    before = path.read_bytes()
    others = {
        "seed": lambda: pf.sample(LAW, pf.MALA(0.3), start(), **{**call, "seed": 2}),
        "n_steps": lambda: pf.sample(LAW, pf.MALA(0.3), start(), **{**call, "n_steps": 11}),
        "kernel": lambda: pf.sample(LAW, pf.MALA(0.4), start(), **call),
        "target": lambda: pf.sample(ZOO["ring"], pf.MALA(0.3), start(), **call),
        "start": lambda: pf.sample(LAW, pf.MALA(0.3), start(8), **call),
        "thin": lambda: pf.sample(LAW, pf.MALA(0.3), start(), thin=2, **call),
    }
    for name, other in others.items():
        with pytest.raises(ValueError, match=f"another run: .*{name}"):
            other()
        assert path.read_bytes() == before


def test_corrupt_and_unwritable_checkpoints(tmp_path):
    path = tmp_path / "run.safetensors"
    call = {"n_steps": 10, "seed": 1, "checkpoint": path}
    pf.sample(LAW, pf.MALA(0.3), start(), **call)
    with path.with_name(f".{path.name}.part").open("wb") as part:
        fcntl.flock(part, fcntl.LOCK_EX)  # as if somebody wrote it
        assert pf.sample(LAW, pf.MALA(0.3), start(), **call).n_steps == 10  # has ended long ago
        with pytest.raises(BlockingIOError):
            pf.sample(LAW, pf.MALA(0.3), start(), **{**call, "n_steps": 11})
    content = bytearray(path.read_bytes())
    content[-3] ^= 1
    path.write_bytes(content)
    with pytest.raises(ValueError, match="checkpoint"):
        pf.sample(LAW, pf.MALA(0.3), start(), **call)
    assert path.read_bytes() == bytes(content)
    with pytest.raises(OSError, match="nowhere"):
        pf.sample(LAW, pf.MALA(0.3), start(), n_steps=3, checkpoint=tmp_path / "nowhere" / "file")
    evaluated = []

    def law(x):
        evaluated.append(len(x))
        return -x.square().sum(1)

    (tmp_path / "folder").mkdir()
    for wrong in (tmp_path / "nowhere" / "file", path / "below", tmp_path / "folder"):
        with pytest.raises(OSError, match=str(wrong.parent)):  # before any work
            pf.sample(law, pf.MALA(0.3), start(), n_steps=3, checkpoint=wrong)
    assert not evaluated
    with pytest.raises(ValueError, match="every: expected a checkpoint"):
        pf.sample(LAW, pf.MALA(0.3), start(), n_steps=3, every=2)


def test_draws_on_disk_are_the_draws(tmp_path):
    pytest.importorskip("zarr")
    from pushforward.storage import DrawStore

    for i, target in enumerate((LAW, TORCH)):
        for kernel in (pf.MALA(0.3), pf.Langevin(0.05)):
            path = tmp_path / f"{i}-{type(kernel).__name__}.zarr"
            memory = pf.sample(target, kernel, start(), n_steps=50, thin=3, seed=1)
            disk = pf.sample(target, kernel, start(), n_steps=50, thin=3, seed=1, store=path)
            draws, log_density = DrawStore.open(path).read()
            assert torch.equal(draws, memory.draws)
            assert torch.equal(log_density, memory.log_density)
            assert torch.equal(disk.mean, memory.mean)
            assert disk.path == path
            assert disk.draws is None
            with pytest.raises(ValueError, match=str(path)):
                pf.sample(target, kernel, start(), n_steps=5, store=path)
    with pytest.raises(ValueError, match="store: expected"):
        pf.sample(LAW, pf.MALA(0.3), start(), n_steps=5, store=str(tmp_path / "text.zarr"))
