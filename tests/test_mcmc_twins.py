# SPDX-License-Identifier: Apache-2.0
"""Kernels that are broken on purpose fail the check that the real ones pass."""

import pytest
import torch

import pushforward as pf
from conftest import ZOO
from test_mcmc_laws import P_LIMIT, after, p_value

LAW = ZOO["gaussian-plane"]


def with_correction(kind, change):
    """A kernel like ``kind`` whose log-ratio has another correction."""

    class Twin(kind):
        def step(self, state, step):
            accept = state.accept

            def altered(step, proposed, value, *, correction, **more):
                return accept(step, proposed, value, correction=change(correction), **more)

            state.accept = altered
            try:
                return super().step(state, step)
            finally:
                del state.accept

    return Twin


class Drifting(pf.RandomWalk):
    """Proposals that lean to one side, accepted as if they did not."""

    drift = 0.3

    def step(self, state, step):
        evaluate = state.evaluate

        def moved(x, *, score):
            x += self.drift  # the proposal itself
            return evaluate(x, score=score)

        state.evaluate = moved
        try:
            return super().step(state, step)
        finally:
            del state.evaluate


class Upright(Drifting):
    drift = 0.0


class Symmetric(pf.mcmc.Autoregressive):
    """Proposals that are drawn to the center, accepted as if they were symmetric."""

    def propose(self, state, step):
        y, correction = super().propose(state, step)
        return y, torch.zeros_like(correction)


HMC = {
    "hmc": lambda c: c,
    "hmc, the kinetic energy with the wrong sign": lambda c: -c,
    "hmc, no kinetic energy": torch.zeros_like,
    "hmc, everything accepted": lambda c: torch.full_like(c, 1e30),
}
KERNELS = {name: with_correction(pf.HMC, change)(0.4, 4) for name, change in HMC.items()} | {
    "random walk": Upright(0.8),
    "random walk with a drift": Drifting(0.8),
    "autoregressive": pf.MetropolisHastings(pf.mcmc.Autoregressive(0.6, 1.5, 0.3)),
    "autoregressive as if symmetric": pf.MetropolisHastings(Symmetric(0.6, 1.5, 0.3)),
}
RIGHT = ["hmc", "random walk", "autoregressive"]


@pytest.mark.parametrize("name", KERNELS)
def test_only_the_right_kernel_leaves_the_law_invariant(name):
    chains = after(LAW, KERNELS[name], target=LAW.torch_log_density)
    assert (p_value(LAW, chains.x) > P_LIMIT) == (name in RIGHT)
