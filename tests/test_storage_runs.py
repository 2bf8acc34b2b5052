# SPDX-License-Identifier: Apache-2.0
"""Results of runs whose draws are on disk: what ArviZ and figures are given, and a store gone."""

import os
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

import pushforward as pf
from pushforward.lattice import HeatBath, Ising
from pushforward.storage import DrawStore, layout
from stores import made

pytest.importorskip("zarr", minversion="3.1.3")

LAW = pf.targets.Gaussian(torch.arange(3.0), scale=torch.tensor([1.0, 2.0, 0.5]))
TORCH = pf.Energy(lambda x: -LAW.log_density(x))
KERNEL = pf.MALA(0.3)
CALL = {"n_steps": 100, "thin": 3, "seed": 1}
OTHER = r"of the run with seed 1, .*, run [0-9a-f]{16}, got .* another .*, run [0-9a-f]{16}$"


@pytest.fixture
def path(tmp_path):
    return tmp_path / "draws.zarr"


@pytest.fixture
def short(monkeypatch):
    """Chunks of a few hundred bytes, so that small stores have many."""
    monkeypatch.setattr(layout, "_CHUNK", 400)


def start():
    return LAW.sample(8, seed=0)


def both(path, target=LAW, kernel=KERNEL, x=None, **call):
    """One run with its draws in memory and on disk."""
    x, call = start() if x is None else x, {**CALL, **call}
    memory = pf.sample(target, kernel, x, **call)
    disk = pf.sample(target, kernel, x, store=path, **call)
    assert memory.path is None
    assert disk.draws is None
    return memory, disk


def arrays(chains):
    """What ArviZ has of a run: draws and log-densities, chains first."""
    pytest.importorskip("arviz")
    data = chains.to_arviz("z")
    return data.posterior["z"].to_numpy(), data.sample_stats["lp"].to_numpy()


def same_arrays(a, b):
    return all(p.dtype == q.dtype and np.array_equal(p, q) for p, q in zip(a, b, strict=True))


def picture(figure):
    """The numbers of a figure: a list of traces, a list of bars, an axis after another."""
    lines = [[line.get_ydata() for line in axis.lines] for axis in figure.axes]
    bars = [[bar.get_bbox().bounds for bar in axis.patches] for axis in figure.axes]
    return lines, bars


def same_pictures(a, b):
    (lines, bars), (other_lines, other_bars) = picture(a), picture(b)
    return bars == other_bars and all(
        np.array_equal(p, q) for p, q in zip(lines, other_lines, strict=True)
    )


# ---- what passes ---------------------------------------------------------------------------------


SPINS = Ising((4, 6), temperature=2.5)


@pytest.mark.parametrize(
    ("target", "kernel", "x"),
    [
        (LAW, KERNEL, None),
        (TORCH, KERNEL, None),
        (SPINS, HeatBath(), torch.ones(5, 4, 6, dtype=torch.int8)),
    ],
    ids=["native", "torch", "spins"],
)
def test_the_energy_of_what_goes_to_disk_is_known(path, target, kernel, x):
    memory, disk = both(path, target, kernel, x)
    assert disk.energy == pytest.approx(memory.energy, rel=1e-12)


@pytest.mark.parametrize("target", [LAW, TORCH], ids=["native", "torch"])
def test_a_resumed_run_knows_the_energy(path, target):
    whole = pf.sample(target, KERNEL, start(), store=path, **CALL)
    call = {**CALL, "store": path.with_name("part.zarr"), "checkpoint": path.with_name("part")}
    pf.sample(target, KERNEL, start(), **call, every=10, callback=lambda step, x: step >= 40)
    assert pf.sample(target, KERNEL, start(), **call, every=10).energy == whole.energy


# ---- what is read --------------------------------------------------------------------------------


@pytest.mark.parametrize("target", [LAW, TORCH], ids=["native", "torch"])
@pytest.mark.usefixtures("short")
def test_arviz_gets_the_draws_of_the_store(path, target):
    memory, disk = both(path, target)
    found = arrays(disk)
    assert found[0].shape == (8, 33, 3)
    assert found[1].shape == (8, 33)
    assert same_arrays(found, arrays(memory))
    assert np.array_equal(found[0], memory.draws.transpose(0, 1))
    assert disk.draws is None
    assert torch.equal(disk.rhat, pf.diagnostics.streaming_rhat(disk.tallies))
    assert disk.summary().ess_tail is None  # as of any run without draws


@pytest.mark.parametrize("shape", [(), (2,), (2, 3)])
@pytest.mark.usefixtures("short")
def test_a_figure_is_that_of_the_draws_and_reads_a_chunk_at_a_time(path, shape, monkeypatch):
    pytest.importorskip("matplotlib")
    law = pf.Energy(lambda x: 0.5 * x.flatten(1).square().sum(1) if x.ndim > 1 else 0.5 * x**2)
    memory, disk = both(path, law, x=torch.zeros(8, *shape))
    lengths, read = [], DrawStore.read

    def counted(store, start=0, stop=None):
        lengths.append(stop - start)
        return read(store, start, stop)

    monkeypatch.setattr(DrawStore, "read", counted)
    for call in ({}, {"max_coordinates": 1}, {"max_coordinates": 4, "max_chains": 3}):
        assert same_pictures(disk.plot(**call), memory.plot(**call))
    n_chunk = 400 // (4 * 8 * int(np.prod(shape)))
    assert len(lengths) == 3 * -(-33 // n_chunk) > 3
    assert max(lengths) == n_chunk


def test_spins_come_back_as_spins(path):
    law, x = Ising((4, 4), temperature=3.0), torch.ones(5, 4, 4, dtype=torch.int8)
    memory, disk = both(path, law, HeatBath(), x)
    found = arrays(disk)
    assert same_arrays(found, arrays(memory))
    assert found[0].dtype == np.int8
    assert found[1].dtype == np.float64
    assert set(np.unique(found[0])) == {-1, 1}
    pytest.importorskip("matplotlib")
    assert same_pictures(disk.plot(), memory.plot())


def test_a_run_that_was_ended_early_has_what_it_did(path):
    disk = pf.sample(
        TORCH,
        KERNEL,
        start(),
        n_steps=10**6,
        thin=3,
        seed=1,
        store=path,
        callback=lambda next_step, x: next_step > 30,
    )
    assert disk.interrupted
    assert 30 < disk.n_steps < 10**6
    memory = pf.sample(TORCH, KERNEL, start(), n_steps=disk.n_steps, thin=3, seed=1)
    assert same_arrays(arrays(disk), arrays(memory))
    assert same_pictures(disk.plot(), memory.plot())


@pytest.mark.filterwarnings("ignore:More chains")  # than draws
def test_a_run_that_was_ended_in_its_warm_up_has_no_draws(path):
    disk = pf.sample(
        LAW, KERNEL, start(), warmup=10**6, n_steps=9, store=path, callback=lambda *_: True
    )
    assert (disk.interrupted, disk.n_steps) == (True, 0)
    assert arrays(disk)[0].shape == (8, 0, 3)


def test_a_run_that_went_on_later_keeps_its_draws_apart(path, tmp_path):
    call = {"n_steps": 90, "thin": 3, "seed": 1, "checkpoint": tmp_path / "run", "every": 30}
    first = pf.sample(LAW, KERNEL, start(), store=path, callback=lambda k, _: k >= 30, **call)
    assert first.interrupted
    assert first.n_steps == 30
    found = arrays(first)
    assert found[0].shape == (8, 10, 3)
    whole = arrays(pf.sample(LAW, KERNEL, start(), store=path, **call))
    assert whole[0].shape == (8, 30, 3)
    assert same_arrays(arrays(first), found)
    assert np.array_equal(whole[0][:, :10], found[0])


def test_a_relative_path_is_that_of_the_call(tmp_path, monkeypatch):
    here, there = tmp_path / "here", tmp_path / "there"
    here.mkdir()
    there.mkdir()
    monkeypatch.chdir(here)
    memory = pf.sample(LAW, KERNEL, start(), **CALL)
    disk = pf.sample(LAW, KERNEL, start(), store=Path("draws.zarr"), **CALL)
    assert disk.path == here / "draws.zarr"
    monkeypatch.chdir(there)
    assert same_arrays(arrays(disk), arrays(memory))
    moves = pf.sample(
        LAW, KERNEL, start(), store=Path("x"), burn_in=5, callback=lambda *_: os.chdir(here), **CALL
    )
    assert moves.path == there / "x"
    assert arrays(moves)[0].shape == (8, 33, 3)


def test_a_folder_may_be_moved_with_its_checkpoint(tmp_path, monkeypatch):
    here, there = tmp_path / "here", tmp_path / "there"
    here.mkdir()
    monkeypatch.chdir(here)
    call = {**CALL, "store": Path("draws.zarr"), "checkpoint": Path("run"), "every": 30}
    first = pf.sample(LAW, KERNEL, start(), callback=lambda k, _: k >= 30, **call)
    assert first.n_steps == 30
    here.rename(there)
    monkeypatch.chdir(there)
    whole = pf.sample(LAW, KERNEL, start(), **call)
    assert whole.path == there / "draws.zarr"
    assert whole.identity == first.identity
    assert same_arrays(arrays(whole), arrays(pf.sample(LAW, KERNEL, start(), **CALL)))


@pytest.mark.parametrize("stop_after", [10, 30, 70])
def test_a_resumed_run_finds_its_store_after_a_warm_up(path, tmp_path, stop_after):
    call = {"warmup": 20, "burn_in": 20, "n_steps": 60, "seed": 1, "store": path}
    call |= {"checkpoint": tmp_path / "run", "every": 5}
    first = pf.sample(TORCH, pf.HMC(), start(), callback=lambda k, _: k >= stop_after, **call)
    assert first.interrupted
    whole = pf.sample(TORCH, pf.HMC(), start(), **call)
    assert whole.identity == first.identity
    assert arrays(whole)[0].shape == (8, 60, 3)


# ---- what cannot be read -------------------------------------------------------------------------


def methods(chains):
    pytest.importorskip("arviz")
    pytest.importorskip("matplotlib")
    return chains.to_arviz, chains.plot


def test_a_store_that_is_gone_is_an_error(path):
    disk = pf.sample(LAW, KERNEL, start(), store=path, **CALL)
    moved = path.with_name("elsewhere.zarr")
    path.rename(moved)
    for method in methods(disk):
        with pytest.raises(FileNotFoundError, match=r"got nothing there: it was moved or") as told:
            method()
        assert str(path) in str(told.value)
    moved.rename(path)
    assert arrays(disk)[0].shape == (8, 33, 3)
    shutil.rmtree(path)
    for method in methods(disk):
        with pytest.raises(FileNotFoundError, match="moved or deleted"):
            method()
    path.mkdir()
    for method in methods(disk):
        with pytest.raises(ValueError, match=r"expected a store of draws, got no zarr\.json"):
            method()
    assert disk.mean.isfinite().all()  # which needs no store


@pytest.mark.parametrize(
    ("other", "words"),
    [
        ({"seed": 2}, "expected the draws of the run with seed 1, .* got those of another with seed 2"),
        ({"x": torch.zeros(4, 3)}, r"n_chains 8, event \(3,\), run .*, got .* n_chains 4, event"),
        ({"n_steps": 90}, "expected the 33 draws of this run, got 30"),
        ({"x": torch.zeros(8, 3)}, OTHER),
        ({"x": LAW.sample(8, seed=0).double()}, OTHER),
        ({"kernel": pf.Langevin(0.3)}, OTHER),
        ({"kernel": pf.MALA(0.31)}, OTHER),
        ({"warmup": 20}, OTHER),
        ({"burn_in": 1}, OTHER),
        ({"thin": 2}, OTHER),
        ({"first_step": 100}, OTHER),
        ({"chain_offset": 8}, OTHER),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)  # fmt: skip
def test_a_store_of_another_run_is_an_error(path, other, words):
    disk = pf.sample(LAW, KERNEL, start(), store=path, **CALL)
    shutil.rmtree(path)
    pf.sample(LAW, **{"kernel": KERNEL, "x": start(), **CALL, **other}, store=path)
    for method in methods(disk):
        with pytest.raises(ValueError, match=words) as told:
            method()
        assert str(path) in str(told.value)


def test_a_store_of_the_same_run_again_is_that_of_the_first(path):
    first = pf.sample(LAW, KERNEL, start(), store=path, **CALL)
    found = arrays(first)
    shutil.rmtree(path)
    pf.sample(LAW, KERNEL, start(), store=path, **{**CALL, "n_steps": 200})
    assert same_arrays(arrays(first), found)


@pytest.mark.parametrize("names", [("a", "b"), ("b", "a"), ("a", "c")])
def test_a_store_of_other_parameters_is_an_error(path, names):
    def run(*names):
        x = {name: torch.zeros(8) for name in names}
        law = pf.Energy(lambda x: sum(value**2 for value in x.values()))
        return pf.sample(law, KERNEL, x, store=path, **CALL)

    first = run("a", "b")
    shutil.rmtree(path)
    run(*names)
    for method in methods(first):
        if names == ("a", "b"):
            method()
        else:
            with pytest.raises(ValueError, match=OTHER):
                method()


def test_a_result_without_a_digest_is_not_compared_with_one(path):
    disk = pf.sample(LAW, KERNEL, start(), store=path, **CALL)
    assert DrawStore.open(path).attributes["run"] == disk.identity
    assert same_arrays(arrays(replace(disk, identity=None)), arrays(disk))
    assert pf.sample(LAW, KERNEL, start(), **CALL).identity is None


def test_a_store_that_no_run_wrote_is_an_error(path):
    disk = pf.sample(LAW, KERNEL, start(), store=path, **CALL)
    shutil.rmtree(path)
    made(path, n_chains=8, event=(3,), attributes={"seed": 1}).close()
    with pytest.raises(ValueError, match="expected the draws of the run with seed 1"):
        disk.plot()


def test_a_damaged_chunk_is_an_error(path):
    disk = pf.sample(LAW, KERNEL, start(), store=path, **CALL)
    chunk = next((path / "posterior" / "x").glob("c.*"))
    content = bytearray(chunk.read_bytes())
    content[3] ^= 1
    chunk.write_bytes(content)
    for method in methods(disk):
        with pytest.raises(ValueError, match="a chunk is damaged"):
            method()


@pytest.mark.parametrize("store", ["stats", "last"])
def test_draws_that_nobody_kept_are_an_error(store):
    chains = pf.sample(LAW, KERNEL, start(), store=store, **CALL)
    for method in methods(chains):
        with pytest.raises(ValueError, match="draws: expected a run with store="):
            method()


@pytest.mark.parametrize("on_disk", [False, True])
@pytest.mark.parametrize("event", [(0,), (0, 3)])
def test_a_figure_of_no_coordinates_is_an_error(path, event, on_disk):
    pytest.importorskip("matplotlib")
    law = pf.Energy(lambda x: 0.5 * x.flatten(1).square().sum(1))
    call = {**CALL, "store": path} if on_disk else CALL
    x = torch.zeros(4, *event)
    chains = pf.sample(law, pf.RandomWalk(0.1), x, **call)
    with pytest.raises(ValueError, match="plot: expected draws with at least one coordinate"):
        chains.plot()


@pytest.mark.parametrize("name", ["max_coordinates", "max_chains"])
def test_a_figure_shows_something(name):
    pytest.importorskip("matplotlib")
    chains = pf.sample(LAW, KERNEL, start(), **CALL)
    for bad, error in ((0, ValueError), (-1, ValueError), (2.0, TypeError), (True, TypeError)):
        with pytest.raises(error, match=f"{name}: expected"):
            chains.plot(**{name: bad})
