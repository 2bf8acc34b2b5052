# SPDX-License-Identifier: Apache-2.0
"""Malformed calls on lattices: an error that names the argument, and no crash."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pushforward._ops import lattice as ops
from pushforward.lattice import HeatBath, Ising, Metropolis, Phi4, SwendsenWang, Wolff, observables
from test_bad_input import anything, coefficient, index, mostly, sizes, small, survives, tensors

KERNELS = [Metropolis(), Metropolis(width=0.5), HeatBath(), SwendsenWang(), Wolff()]
RUN = {"seed": 0, "first_step": 0, "n_steps": 1, "chain_offset": 0}
SQUARE = Ising((4, 4), temperature=2.0)
FIELD = Phi4((4, 4), kappa=0.1, lam=0.1)


@pytest.mark.parametrize(
    ("make", "error", "says"),
    [
        (lambda: Ising((4,), temperature=1.0), ValueError, "shape"),
        (lambda: Ising((4, 0), temperature=1.0), ValueError, "shape"),
        (lambda: Ising(4, temperature=1.0), TypeError, "shape"),
        (lambda: Ising((4, 4.0), temperature=1.0), TypeError, "shape"),
        (lambda: Ising((4, 4), temperature=0.0), ValueError, "temperature"),
        (lambda: Ising((4, 4), temperature=math.inf), ValueError, "temperature"),
        (lambda: Ising((4, 4), temperature=[1.0, 2.0], field=[0.0] * 3), ValueError, "lattices"),
        (lambda: Ising((4, 4), temperature="warm"), TypeError, "temperature"),
        (lambda: Phi4((4, 4), kappa=0.3, lam=0.0), ValueError, "lam"),
        (lambda: Phi4((4, 4), kappa=0.1, lam=-0.1), ValueError, "lam"),
        (lambda: Phi4((2,) * 5, kappa=0.1, lam=0.1), ValueError, "shape"),
        (lambda: Phi4.from_mass((4, 4), m2=-4.0, lam=0.0), ValueError, "m2"),
        (lambda: Phi4.from_mass((4, 4), m2=1.0, lam=-1.0), ValueError, "lam"),
        (lambda: Metropolis(width=0.0), ValueError, "width"),
        (lambda: Metropolis(width="wide"), TypeError, "width"),
    ],
)
def test_laws_and_kernels(make, error, says):
    with pytest.raises(error, match=says):
        make()


@pytest.mark.parametrize(
    ("kernel", "law", "x", "error", "says"),
    [
        (Metropolis(), SQUARE, torch.zeros(2, 4, 4), ValueError, "spins"),
        (Metropolis(), SQUARE, torch.ones(2, 4, 4, dtype=torch.int64), TypeError, "int8"),
        (Metropolis(), SQUARE, torch.ones(2, 4, 5), ValueError, "expected shape"),
        (Metropolis(), SQUARE, torch.ones(4, 4), ValueError, "expected shape"),
        (Metropolis(), SQUARE, torch.full((1, 4, 4), math.nan), ValueError, "spins"),
        (Metropolis(), SQUARE, torch.ones(2, 4, 4).transpose(1, 2), ValueError, "contiguous"),
        (Metropolis(), SQUARE, [1.0], TypeError, "x"),
        (Metropolis(width=1.0), SQUARE, torch.ones(2, 4, 4), ValueError, "width"),
        (Metropolis(), FIELD, torch.ones(2, 4, 4), ValueError, "width"),
        (Metropolis(width=torch.ones(3)), FIELD, torch.ones(2, 4, 4), ValueError, "width"),
        (Metropolis(width=1.0), FIELD, torch.ones(2, 4, 4).half(), TypeError, "float32"),
        (HeatBath(), FIELD, torch.ones(2, 4, 4), TypeError, "Ising"),
        (Wolff(), FIELD, torch.ones(2, 4, 4), TypeError, "Ising"),
        (SwendsenWang(), "law", torch.ones(2, 4, 4), TypeError, "Ising"),
        (Metropolis(), Ising((3, 4), temperature=1.0), torch.ones(1, 3, 4), ValueError, "even"),
        (HeatBath(), Ising((4, 4), temperature=[1.0, 2.0]), torch.ones(3, 4, 4), ValueError, "2"),
    ],
)
def test_states(kernel, law, x, error, says):
    with pytest.raises(error, match=says):
        kernel.check(law, x)


def one_wrong(value, dtype=torch.float32):
    x = torch.ones(40, 4, 4).to(dtype)
    x[37, 2, 1] = value
    return x


@pytest.mark.parametrize(
    ("x", "error", "says"),
    [
        (one_wrong(0.5), ValueError, r"expected spins \+1 and -1, got 0\.5"),
        (one_wrong(0.0, torch.float64), ValueError, r"got 0\.0"),
        (one_wrong(math.nan, torch.bfloat16), ValueError, "got nan"),
        (one_wrong(-math.inf, torch.float16), ValueError, "got -inf"),
        (one_wrong(0, torch.int8), ValueError, r"got 0$"),
        (one_wrong(-128, torch.int8), ValueError, "got -128"),
        (one_wrong(0.5).requires_grad_(), ValueError, r"got 0\.5"),
        (one_wrong(0.5).transpose(1, 2), ValueError, r"got 0\.5"),
        *(
            (torch.ones(40, 4, 4, dtype=dtype), TypeError, "int8 or a floating type, got torch")
            for dtype in (torch.bool, torch.uint8, torch.int64, torch.complex64)
        ),
    ],
    ids=str,
)
def test_what_is_no_spin(x, error, says, monkeypatch):
    for name, call in (
        ("x", SQUARE.energy),
        ("x", SQUARE.log_density),
        ("states", lambda x: observables(x, SQUARE)),
        ("states", lambda x: observables(x[:, None], SQUARE)),
    ):
        with pytest.raises(error, match=f"^{name}: .*{says}"):
            call(x)
    monkeypatch.setattr("pushforward.lattice.states._PIECE", 32)  # two states at a time
    with pytest.raises(error, match=f"^states: .*{says}"):
        observables(x[:, None], SQUARE)


def test_spins_where_no_value_can_be_read():
    x = torch.ones(3, 2, 4, 4)
    assert torch.equal(torch.func.vmap(SQUARE.energy)(x), torch.full((3, 2), -32.0))
    score = torch.func.grad(lambda s: SQUARE.log_density(s).sum())(x[0])
    assert torch.equal(score, torch.full((2, 4, 4), 2.0))
    compiled = torch.compile(SQUARE.energy, fullgraph=True, backend="eager")
    assert torch.equal(compiled(x[0]), torch.full((2,), -32.0))
    with pytest.raises(TypeError, match="int8"):
        torch.func.vmap(SQUARE.energy)(x.bool())


@pytest.mark.parametrize("dtype", [torch.bool, torch.uint8, torch.int64, torch.complex64])
def test_observables_of_fields_that_are_not_floating(dtype):
    with pytest.raises(TypeError, match="states: expected a floating type, got torch"):
        observables(torch.ones(3, 2, 4, 4, dtype=dtype), FIELD)


def test_odd_sizes_and_huge_counts():
    odd = Ising((3, 4), temperature=1.0)
    with pytest.raises(ValueError, match="even"):
        Metropolis().advance(torch.ones(1, 3, 4), odd, **RUN)
    SwendsenWang().check(odd, torch.ones(1, 3, 4))
    for name, value in (
        ("seed", -1),
        ("first_step", 2**60),
        ("chain_offset", 2**56),
        ("n_steps", -1),
    ):
        for kernel in KERNELS[:1] + KERNELS[2:]:
            with pytest.raises(ValueError, match=name):
                kernel.advance(torch.ones(1, 4, 4), SQUARE, **{**RUN, name: value})
        with pytest.raises(ValueError, match=name):
            ops.phi4_run(
                "mala", torch.ones(1, 4, 4), FIELD.native_parameters(torch.ones(1, 4, 4)), 0.1,
                **{**RUN, name: value},
            )  # fmt: skip


def test_nothing_to_do_is_legal():
    for kernel in KERNELS[:1] + KERNELS[2:]:
        kernel.advance(torch.ones(0, 4, 4), SQUARE, **RUN)
        x = torch.ones(2, 4, 4)
        kernel.advance(x, SQUARE, **{**RUN, "n_steps": 0})
        assert torch.equal(x, torch.ones(2, 4, 4))
    assert FIELD.log_density(torch.ones(0, 4, 4)).shape == (0,)


def test_laws_are_immutable_and_can_be_copied():
    import copy
    import pickle

    with pytest.raises(AttributeError):
        SQUARE.temperature = torch.tensor(1.0)
    for law in (copy.deepcopy(FIELD), pickle.loads(pickle.dumps(FIELD))):
        assert torch.equal(law.score(torch.ones(1, 4, 4)), FIELD.score(torch.ones(1, 4, 4)))


states = mostly(
    st.builds(
        lambda n, d, dtype: torch.ones(n, *d, dtype=dtype),
        sizes,
        st.lists(sizes, max_size=4),
        st.sampled_from([torch.int8, torch.float32, torch.float64, torch.bfloat16]),
    ),
    tensors(),
)


@settings(max_examples=300)
@given(
    x=states, t=coefficient, h=coefficient, heat=st.booleans(), no_field=st.booleans(), seed=index,
    first=index, n=small, offset=index, wolff=st.booleans(),
)  # fmt: skip
def test_native_ising(x, t, h, heat, no_field, seed, first, n, offset, wolff):
    if not isinstance(x, torch.Tensor):
        return
    run = {"seed": seed, "first_step": first, "n_steps": n, "chain_offset": offset}

    def positive(value):
        value = ops.parameter(value, x, "temperature")
        if not bool((value > 0).all()):
            raise ValueError("what the law's own check refuses")
        return value

    survives(
        lambda: ops.ising_sweeps(
            x, temperature=positive(t), field=ops.parameter(h, x, "field"), no_field=no_field,
            heat_bath=heat, **run,
        )
    )  # fmt: skip
    survives(
        lambda: ops.ising_clusters(
            x, temperature=positive(t), field=ops.parameter(h, x, "field"), wolff=wolff, **run
        )
    )


@settings(max_examples=300)
@given(
    x=states, law=mostly(st.just(FIELD)), kernel=mostly(st.sampled_from(KERNELS)), h=coefficient,
    seed=index, first=index, n=small, offset=index, leaps=small, a=mostly(st.none(), tensors()), b=mostly(st.none(), tensors()),
)  # fmt: skip
def test_laws_on_anything(x, law, kernel, h, seed, first, n, offset, leaps, a, b):
    run = {"seed": seed, "first_step": first, "n_steps": n, "chain_offset": offset}
    for each in (law, SQUARE):
        if not isinstance(kernel, tuple(type(k) for k in KERNELS)):
            continue

        def go(each=each):
            kernel.check(each, x)
            kernel.advance(x, each, **run)

        survives(go)
    survives(lambda: FIELD.score(x))
    survives(lambda: SQUARE.log_density(x))
    survives(
        lambda: ops.phi4_run(
            "hmc", x, FIELD.native_parameters(x), h, n_leapfrog=leaps, accepted=a,
            accepted_squares=b, **run,
        )
    )  # fmt: skip


@settings(max_examples=150)
@given(shape=anything, a=anything, b=anything, c=anything)
def test_constructors(shape, a, b, c):
    survives(lambda: Ising(shape, temperature=a, field=b))
    survives(lambda: Phi4((4, 4), kappa=a, lam=b, field=c))
    survives(lambda: Phi4.from_mass((4, 4), m2=a, lam=b, field=c))
    survives(lambda: Metropolis(width=a))
