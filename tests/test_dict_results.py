# SPDX-License-Identifier: Apache-2.0
"""Runs of dicts of tensors: what they return, checkpoints and stores, what they refuse."""

import copy
import inspect
import io
import pickle

import pytest
import torch

import pushforward as pf
from pushforward import sampling
from schools import SHAPES, check_same, flattened, schools, schools_by_hand, start

# ---- what a run is told and returns --------------------------------------------------------------


def test_the_callback_sees_the_live_state():
    seen = []

    def callback(step, x):
        seen.append((step, {name: value.clone() for name, value in x.items()}))
        x["mu"].add_(0.0)
        return step >= 3

    chains = pf.sample(schools, pf.MALA(0.05), start(), n_steps=10**6, callback=callback, seed=1)
    assert chains.interrupted
    assert chains.next_step == seen[-1][0]
    for name, value in chains.x.items():
        assert torch.equal(value, seen[-1][1][name])
        assert value.shape == (40, *SHAPES[name])


def test_chains_that_cannot_move():
    def law(x):
        return torch.where(x["mu"] > 100, torch.nan, schools(x))

    x = start(5)
    x["mu"][3] = 200.0
    with pytest.warns(RuntimeWarning, match="1 of 5 chains"):
        named = pf.sample(law, pf.MALA(0.05), x, n_steps=9, seed=1)
    assert named.held.tolist() == [False, False, False, True, False]
    assert named.mean["mu"] < 100
    with pytest.raises(ValueError, match=r"it is 0 in 1 chains, the first being \[3\]"):
        pf.sample(lambda x: law(x).nan_to_num(-torch.inf), pf.MALA(0.05), x, n_steps=9, seed=1)


def test_rows_that_raise_are_found():
    def law(x):
        if (x["mu"].abs() > 3).any():
            raise ValueError("mu")
        return schools(x)

    x = {name: value.clamp(-1, 1) for name, value in start(20).items()}
    with pytest.warns(RuntimeWarning, match="of 20 chains left"):
        named = pf.sample(law, pf.RandomWalk(1.0), x, n_steps=20, seed=1)
    assert named.draws["mu"].abs().max() <= 3


@pytest.mark.parametrize("kernel", [pf.Langevin(0.01), pf.RandomWalk(0.1), pf.NUTS(0.1)])
def test_no_chains_and_no_numbers(kernel):
    shapes = {"none": (0, 3), **SHAPES}
    x = {"none": torch.zeros(6, 0, 3), **start(6)}

    def law(x):
        return schools(x) + x["none"].flatten(1).sum(1)

    call = {"n_steps": 5, "seed": 1}
    flat = pf.sample(schools_by_hand, kernel, flattened(x), **call)
    check_same(pf.sample(law, kernel, x, **call), flat, shapes)
    none = {name: value[:0] for name, value in x.items()}
    empty = pf.sample(law, kernel, none, **call)
    check_same(empty, pf.sample(schools_by_hand, kernel, flattened(none), **call), shapes)
    assert empty.draws["theta"].shape == (5, 0, 8)


@pytest.mark.parametrize("store", ["draws", "stats"])
def test_table_and_repr(store):
    chains = pf.sample(schools, pf.MALA(0.05), start(), n_steps=40, store=store, seed=1)
    names = (*(f"theta[{i}]" for i in range(8)), "mu", "log_tau")
    table = chains.summary()
    assert chains.names == ("theta", "mu", "log_tau")
    assert chains.coordinates == table.names == names
    assert [line.split()[0] for line in str(table).splitlines()[1:]] == list(names)
    assert torch.equal(table.mean[8], table.mean[names.index("mu")])
    assert torch.allclose(table.mean[8], chains.mean["mu"])
    assert torch.allclose(table.rhat[:8], chains.rhat["theta"])
    assert repr(chains) == (
        "NamedChains(x: theta (40, 8), mu (40,), log_tau (40,); n_steps=40, "
        f"n_kept={40 if store == 'draws' else 0}, seed=1, next_step=40)"
    )


def test_figure():
    pytest.importorskip("matplotlib")
    x = {"mu": torch.zeros(3), "b": torch.zeros(3, 2, 2)}
    chains = pf.sample(
        lambda x: -(x["mu"] ** 2) - x["b"].square().sum((1, 2)), pf.MALA(0.1), x, n_steps=5, seed=1
    )
    titles = [axes.get_ylabel() for axes in chains.plot(max_coordinates=4).axes[::2]]
    assert titles == ["mu", "b[0, 0]", "b[0, 1]", "b[1, 0]"]


def test_arviz():
    pytest.importorskip("arviz")
    chains = pf.sample(schools, pf.MALA(0.05), start(4), n_steps=9, seed=1)
    data = chains.to_arviz()
    assert list(data.posterior.data_vars) == list(SHAPES)
    for name, draws in chains.draws.items():
        assert torch.equal(torch.from_numpy(data.posterior[name].values), draws.transpose(0, 1))
    stats = pf.sample(schools, pf.MALA(0.05), start(), n_steps=9, store="stats", seed=1)
    with pytest.raises(ValueError, match="draws: expected a run with store"):
        stats.to_arviz()
    taken = pf.sample(
        lambda x: -(x["draw"] ** 2), pf.MALA(0.1), {"draw": torch.zeros(3)}, n_steps=9
    )
    for to_arviz in (taken.to_arviz, lambda: chains.flat.to_arviz("draw")):
        with pytest.raises(ValueError, match=r"name: expected another one .* got 'draw'"):
            to_arviz()


def test_arviz_takes_no_name_of_a_dimension_of_another():
    pytest.importorskip("arviz")

    def law(x):
        return -sum(value.flatten(1).square().sum(1) for value in x.values())

    def run(**shapes):
        x = {name: torch.zeros(4, *shape) for name, shape in shapes.items()}
        return pf.sample(law, pf.RandomWalk(0.1), x, n_steps=9, seed=1)

    for shapes in ({"b": (2, 3), "b_dim_1": (1,)}, {"b_dim_1": (1,), "b": (2, 3)}):
        chains = run(**shapes)
        told = "name: expected another one than that of a dimension of 'b', got 'b_dim_1'"
        with pytest.raises(ValueError, match=told):
            chains.to_arviz()
    fine = {"b": (2, 3), "b_dim_2": (1,), "b_dim": (2,)}
    assert set(run(**fine).to_arviz().posterior.data_vars) == set(fine)


def by_file(value):
    file = io.BytesIO()
    torch.save(value, file)
    file.seek(0)
    return torch.load(file, weights_only=False)


@pytest.mark.parametrize(
    "way", [lambda v: pickle.loads(pickle.dumps(v)), copy.deepcopy, copy.copy, by_file]
)
def test_copies(way):
    chains = pf.sample(schools, pf.NUTS(max_depth=3), start(), warmup=40, n_steps=5, seed=1)
    check_same(way(chains), chains.flat)
    again = way(chains)
    check_same(
        pf.sample(schools, again.kernel, again.x, n_steps=3, seed=2),
        pf.sample(schools_by_hand, chains.kernel, chains.flat.x, n_steps=3, seed=2),
    )


def test_the_keywords_that_a_type_checker_sees():
    named = set(inspect.signature(pf.sample).parameters) - {"target", "kernel", "x", "callback"}
    assert named == set(sampling._Settings.__annotations__)


# ---- checkpoints and stores ----------------------------------------------------------------------


class Stop(Exception):
    pass


@pytest.mark.parametrize("stop_after", [10, 45, 70])
@pytest.mark.parametrize("kernel", [pf.HMC(n_leapfrog=3), pf.MALA()], ids=["hmc", "mala"])
def test_a_killed_run_goes_on_bit_for_bit(kernel, stop_after, tmp_path):
    call = {"warmup": 40, "burn_in": 10, "n_steps": 30, "thin": 2, "covariance": True, "seed": 4}
    flat = pf.sample(schools_by_hand, kernel, flattened(start()), **call)
    call |= {"checkpoint": tmp_path / "run", "every": 5}

    def callback(step, x):
        if step >= stop_after:
            raise Stop

    with pytest.raises(Stop):
        pf.sample(schools, kernel, start(), callback=callback, **call)
    for _ in range(2):  # the rest, then the file of the whole
        check_same(pf.sample(schools, kernel, start(), **call), flat)
    check_same(pf.sample(schools, kernel, start(), **{**call, "seed": None}), flat)


def other_law(x):
    return 0.5 * schools(x)


def renamed(x):
    return schools({**x, "mu": x["m"]})


@pytest.mark.parametrize(
    ("law", "x", "told"),
    [
        (other_law, start(), "target"),
        (schools, start(seed=2), r"start.mu.sha256: .*start.theta.sha256"),
        (
            schools,
            {name: start()[name] for name in ("mu", "theta", "log_tau")},
            r'parameters\[0\]: the checkpoint has "theta \(8,\)", this call has "mu \(\)"',
        ),
        (
            renamed,
            {"theta": start()["theta"], "m": start()["mu"], "log_tau": start()["log_tau"]},
            r'parameters\[1\]: the checkpoint has "mu \(\)", this call has "m \(\)"; start.m: the '
            "checkpoint has nothing",
        ),
        (
            lambda x: schools({**x, "mu": x["mu"][:, 0]}),
            start() | {"mu": start()["mu"][:, None]},
            r'parameters\[1\]: the checkpoint has "mu \(\)", this call has "mu \(1,\)"',
        ),
        (
            lambda x: schools(x) - x["more"] ** 2,
            start() | {"more": torch.zeros(40)},
            r"parameters: the checkpoint has \[.*\], this call has \[.*more",
        ),
        (schools_by_hand, flattened(start()), r"parameters: .*this call has nothing"),
    ],
    ids=["law", "start", "order", "name", "shape", "one-more", "flat"],
)
def test_a_checkpoint_of_another_dict_is_refused(law, x, told, tmp_path):
    call = {"n_steps": 6, "seed": 4, "checkpoint": tmp_path / "run"}
    pf.sample(schools, pf.MALA(0.05), start(), **call)
    with pytest.raises(ValueError, match=r"(?s)checkpoint: .* is of another run: .*" + told):
        pf.sample(law, pf.MALA(0.05), x, **call)


def test_a_checkpoint_of_a_flat_run_is_refused(tmp_path):
    call = {"n_steps": 6, "seed": 4, "checkpoint": tmp_path / "run"}
    pf.sample(schools_by_hand, pf.MALA(0.05), flattened(start()), **call)
    with pytest.raises(ValueError, match=r"parameters: the checkpoint has nothing, this call has"):
        pf.sample(schools, pf.MALA(0.05), start(), **call)


@pytest.mark.filterwarnings("ignore:More chains")  # than draws
def test_a_store_has_a_variable_a_parameter(tmp_path):
    zarr = pytest.importorskip("zarr")
    from pushforward.storage import DrawStore

    call = {"n_steps": 30, "thin": 3, "seed": 4}
    whole = pf.sample(schools, pf.MALA(0.05), start(), **call)
    path = tmp_path / "draws.zarr"
    call |= {"store": path, "checkpoint": tmp_path / "run", "every": 7}
    stopped = pf.sample(schools, pf.MALA(0.05), start(), callback=lambda step, x: True, **call)
    assert stopped.interrupted
    done = pf.sample(schools, pf.MALA(0.05), start(), **call)
    assert done.draws is None
    assert done.path == path
    assert torch.equal(done.mean["theta"], whole.mean["theta"])
    assert torch.equal(DrawStore.open(path, names=SHAPES).read()[0], whole.flat.draws)
    posterior = zarr.open(path)["posterior"]
    for name, draws in whole.draws.items():
        assert torch.equal(torch.from_numpy(posterior[name][:]), draws.transpose(0, 1))
    titles = [axes.get_ylabel() for axes in done.plot(max_coordinates=9).axes[::2]]
    assert titles == [*(f"theta[{i}]" for i in range(8)), "mu"]
    read_back = done.to_arviz().posterior
    for name, draws in whole.draws.items():
        assert torch.equal(torch.from_numpy(read_back[name].values), draws.transpose(0, 1))
    with pytest.raises(ValueError, match="x: expected a name that a variable can have, got 'a/b'"):
        pf.sample(schools, pf.MALA(0.05), start() | {"a/b": torch.zeros(40)}, n_steps=1, warmup=99,
                  store=tmp_path / "other.zarr")  # fmt: skip
    assert not (tmp_path / "other.zarr").exists()


# ---- what is refused -----------------------------------------------------------------------------

GAUSSIAN = pf.targets.Gaussian(torch.zeros(10), scale=torch.ones(10))
REAL = torch.distributions.constraints.real
CONSTRAINED = pf.Constrained(schools, {name: (shape, REAL) for name, shape in SHAPES.items()})


@pytest.mark.parametrize(
    ("x", "error", "told"),
    [
        ({}, ValueError, "x: expected at least one tensor, got an empty dict"),
        ({3: torch.zeros(2)}, TypeError, "x: expected names, got 3"),
        ({"mu": 1.0}, TypeError, r"x\['mu'\]: expected a torch.Tensor, got float"),
        (start() | {"mu": None}, TypeError, r"x\['mu'\]: expected a torch.Tensor, got NoneType"),
        ({"mu": torch.zeros(2).half()}, TypeError, r"x\['mu'\]: .*got torch.float16"),
        ({"mu": torch.zeros(2).int()}, TypeError, r"x\['mu'\]: .*got torch.int32"),
        ({"mu": torch.tensor(0.0)}, ValueError, r"x\['mu'\]: .*\(n_chains, \*shape\), got a 0-d"),
        ({"mu": torch.zeros(2).to_sparse()}, ValueError, r"x\['mu'\]: expected a dense tensor"),
        ({"mu": torch.zeros(2, device="meta")}, ValueError, r"x\['mu'\]: expected the CPU or a CUDA"),
        ({"mu": torch.zeros(2), "b": torch.zeros(3, 2)}, ValueError, "x: expected one number of chains, got 2 of mu and 3 of b"),
        ({"mu": torch.zeros(2), "b": torch.zeros(2).double()}, TypeError, "x: expected one dtype, got torch.float32 of mu and torch.float64 of b"),
        (start() | {"log_tau": torch.ones(40).index_fill(0, torch.tensor([4, 9]), torch.nan)}, ValueError, r"x\['log_tau'\]: expected a finite start, got inf or nan in 2 chains, the first being \[4, 9\]"),
        ({"mu": torch.zeros(2)}, ValueError, r"target: expected a log-density of x with shapes mu \(2,\), but it raised KeyError: 'log_tau'"),
        ({f"p{i}": torch.zeros(2) for i in range(11)}, ValueError, r"shapes p0 \(2,\), .*p7 \(2,\), and 3 more, but"),
    ],
)  # fmt: skip
def test_starts_that_are_refused(x, error, told):
    with pytest.raises(error, match=told):
        pf.sample(schools, pf.MALA(0.05), x, n_steps=1, seed=1)


@pytest.mark.parametrize("x", [torch.nn.ParameterDict(start()), [0.0] * 10, None])
def test_starts_that_are_neither_tensors_nor_dicts(x):
    got = f"got {type(x).__name__}$"
    with pytest.raises(TypeError, match=f"^x: expected a torch.Tensor or a dict of them, {got}"):
        pf.sample(schools, pf.MALA(0.05), x, n_steps=1)
    with pytest.raises(TypeError, match=f"^x: expected a torch.Tensor, {got}"):
        pf.sample(GAUSSIAN, pf.MALA(0.05), x, n_steps=1)


def writes(x):
    return schools({**x, "mu": x["mu"].add_(1.0)})


@pytest.mark.parametrize(
    ("law", "error", "told"),
    [
        (GAUSSIAN, TypeError, "x: expected a tensor for Gaussian, got a dict"),
        (torch.distributions.Normal(0.0, 1.0), TypeError, "x: expected a tensor for Normal, got a"),
        (pf.lattice.Phi4((4, 4), kappa=0.1, lam=0.1), TypeError, "x: expected a tensor for Phi4"),
        (CONSTRAINED, TypeError, "for Constrained, got a dict; its unconstrain"),
        (lambda x: x["theta"], ValueError, r"shape \(40,\) for x of shapes theta \(40, 8\), mu .*got \(40, 8\)"),
        (lambda x: x["nu"], ValueError, "it raised KeyError: 'nu'"),
        (lambda x: x.sum(1), ValueError, "it raised AttributeError: 'dict' object has no attribute 'sum'"),
        (lambda x: schools(x).detach(), ValueError, "depends on x differentiably"),
        (writes, ValueError, "is being modified inplace"),
    ],
)  # fmt: skip
def test_laws_that_are_refused(law, error, told):
    with pytest.raises(error, match=told):
        pf.sample(law, pf.MALA(0.05), start(), n_steps=1, seed=1)


def test_kernels_and_settings_that_are_refused():
    with pytest.raises(TypeError, match="kernel: expected a kernel such as Langevin, got Wolff"):
        pf.sample(schools, pf.lattice.Wolff(), start(), n_steps=1)
    ising = pf.lattice.Ising((4, 4), temperature=2.0)
    with pytest.raises(TypeError, match="x: expected a tensor for Ising, got a dict"):
        pf.sample(ising, pf.lattice.Wolff(), start(), n_steps=1)
    with pytest.raises(TypeError, match=r"with conditional\(i, x\) for Gibbs"):
        pf.sample(schools, pf.mcmc.Gibbs(), start(), n_steps=1)
    with pytest.raises(ValueError, match="cuda_graph: expected a state on a GPU"):
        pf.sample(schools, pf.MALA(0.05), start(), n_steps=1, cuda_graph=True)
    with pytest.raises(ValueError, match="leave x as it is, but it writes to x in place"):
        pf.sample(writes, pf.RandomWalk(0.1), start(), n_steps=1)
    with pytest.raises(ValueError, match=r"scale: expected .*10"):
        pf.sample(schools, pf.RandomWalk(torch.ones(9)), start(), n_steps=1)


def test_constrained_values_start_from_unconstrain():
    chains = pf.sample(
        CONSTRAINED, pf.MALA(0.05), CONSTRAINED.unconstrain(start()), n_steps=5, seed=1
    )
    flat = pf.sample(schools_by_hand, pf.MALA(0.05), flattened(start()), n_steps=5, seed=1)
    assert torch.allclose(chains.draws, flat.draws)
