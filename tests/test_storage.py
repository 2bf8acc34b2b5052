# SPDX-License-Identifier: Apache-2.0
"""Stores of draws: what goes in comes out, here and to other readers, and a run goes on."""

import subprocess
import sys
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch

import pushforward as pf
from pushforward.storage import DrawStore, layout
from stores import holds, made, opened, run_of

zarr = pytest.importorskip("zarr", minversion="3.1.3")


@pytest.fixture
def path(tmp_path):
    return tmp_path / "draws.zarr"


@pytest.fixture
def short(monkeypatch):
    """Chunks of a few hundred bytes, so that small stores have many."""
    monkeypatch.setattr(layout, "_CHUNK", 400)
    monkeypatch.setattr(layout, "_LARGEST_CHUNK", 1600)


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32, torch.float64, torch.int8])
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


# ---- damage --------------------------------------------------------------------------------------


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


@pytest.mark.usefixtures("short")
@pytest.mark.parametrize("array", ["posterior/x", "sample_stats/lp"])
def test_a_missing_chunk_is_found_where_it_is_needed(path, array):
    draws, log_density = run_of(50)
    with made(path) as store:
        store.append(draws, log_density)
    last = max((path / array).glob("c.*"), key=lambda file: int(file.name.split(".")[2]))
    last.unlink()
    n = int(last.name.split(".")[2]) * store._layout.n_chunk
    assert torch.equal(DrawStore.open(path).read(0, n)[0], draws[:n])
    with pytest.raises(ValueError, match=f"a chunk is missing .{array}/{last.name}"):
        DrawStore.open(path).read()


def test_chunks_of_nothing_are_there(path):
    with made(path) as store:
        nothing = torch.full((50, store.n_chains, *store.event), torch.nan, dtype=store.dtype)
        store.append(nothing, nothing[..., 0])
    draws, log_density = DrawStore.open(path).read()
    assert draws.isnan().all()
    assert log_density.isnan().all()
