# SPDX-License-Identifier: Apache-2.0
"""Runs that end early, by a callback or Ctrl-C: what they return is whole."""

import os
import signal
import subprocess
import sys
import textwrap
import threading

import pytest
import torch

import pushforward as pf
from ring_runs import KERNEL, LAW, TARGETS, same, start


def test_callback_sees_the_state_and_stops_the_run(law):
    seen = []

    def callback(step, x):
        seen.append((step, x.clone()))
        return step >= 6

    chains = pf.sample(
        law, KERNEL, start(), n_steps=10_000_000, store="last", seed=1, callback=callback
    )
    assert chains.interrupted
    assert chains.next_step == seen[-1][0]
    assert torch.equal(chains.x, seen[-1][1])
    partial = pf.sample(law, KERNEL, start(), n_steps=50, seed=1, callback=lambda s, x: s >= 2)
    assert len(partial.draws) == partial.n_steps < 50
    assert partial.log_density.isfinite().all()
    done = pf.sample(law, KERNEL, start(), n_steps=partial.n_steps, seed=1)
    assert torch.equal(partial.draws, done.draws)
    assert torch.equal(partial.mean, done.mean)


def test_stopping_in_the_burn_in_keeps_nothing(law):
    chains = pf.sample(
        law, KERNEL, start(), n_steps=5, burn_in=10**9, seed=1, callback=lambda s, x: True
    )
    assert chains.interrupted
    assert chains.n_steps == 0
    assert chains.draws.shape == (0, 37, 2)


def test_keyboard_interrupt_from_the_target_returns_what_is_done():
    calls = []

    def log_density(x):
        calls.append(None)
        if len(calls) > 7:  # one of them checks the start
            raise KeyboardInterrupt
        return -0.5 * (x**2).sum(1)

    chains = pf.sample(log_density, KERNEL, start(), n_steps=100, seed=1)
    assert chains.interrupted
    assert len(chains.draws) == 6
    assert chains.log_density[:5].isfinite().all()
    assert chains.log_density[5].isnan().all()  # could not be computed any more
    assert torch.equal(chains.x, chains.draws[-1])


@pytest.mark.parametrize("kind", ["native", "torch"])
def test_ctrl_c_returns_the_partial_result(kind, tmp_path):
    # A real SIGINT to a real process in the middle of a run.
    script = textwrap.dedent(f"""
        import signal, torch, pushforward as pf
        # a process started in the background inherits that SIGINT is ignored
        signal.signal(signal.SIGINT, signal.default_int_handler)
        law = pf.targets.Gaussian(torch.zeros(2), scale=torch.ones(2))
        target = law if {kind!r} == "native" else pf.Energy(lambda x: -law.torch_log_density(x))
        print("ready", flush=True)
        first = []
        def callback(step, x):
            if not first:
                first.append(step)
                print("running", flush=True)
        chains = pf.sample(target, pf.Langevin(0.1), torch.zeros(100, 2), n_steps=10**9,
                           store="stats", seed=1, callback=callback)
        again = pf.sample(target, pf.Langevin(0.1), torch.zeros(100, 2), n_steps=chains.n_steps,
                          store="stats", seed=1)
        print(chains.interrupted, chains.n_steps > 0, torch.equal(again.x, chains.x),
              torch.equal(again.mean, chains.mean), flush=True)
    """)
    process = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True)
    try:
        for line in process.stdout:
            if line.strip() == "running":
                break
        os.kill(process.pid, signal.SIGINT)
        out, _ = process.communicate(timeout=120)
    finally:
        process.kill()
    assert out.split() == ["True", "True", "True", "True"]
    assert process.returncode == 0


@pytest.mark.parametrize("kind", ["native", "torch", "ising"])
def test_a_second_ctrl_c_waits_until_a_step_is_counted(kind, monkeypatch):
    import pushforward.pacing as pacing
    from pushforward import _ops, sweeps

    spins = pf.lattice.Ising((8, 8), temperature=2.5)
    where, name, target, kernel, x = {
        "native": (_ops, "run_chunk", TARGETS["native"], pf.MALA(0.3), start()),
        "torch": (_ops, "accept_", TARGETS["torch"], pf.MALA(0.3), start()),
        "ising": (sweeps, "sweep", spins, pf.lattice.Metropolis(), torch.ones(3, 8, 8)),
    }[kind]
    step, calls = getattr(where, name), []

    def and_two_presses(*args, **more):
        found = step(*args, **more)  # has changed the state, which nobody has counted yet
        calls.append(None)
        for _ in range(2 if len(calls) == 4 else 0):
            os.kill(os.getpid(), signal.SIGINT)
        return found

    monkeypatch.setattr(pacing, "SECONDS", 0.0)  # one step a chunk
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        monkeypatch.setattr(where, name, and_two_presses)
        chains = pf.sample(target, kernel, x, n_steps=50, seed=1)
    finally:
        signal.signal(signal.SIGINT, before)
    assert (chains.interrupted, chains.n_steps) == (True, 4)
    again = pf.sample(target, kernel, x, n_steps=4, seed=1)
    assert torch.equal(chains.x, again.x)
    assert torch.equal(chains.draws, again.draws)
    assert torch.equal(chains.mean, again.mean)
    assert torch.equal(chains.accept_rate, again.accept_rate)


@pytest.mark.parametrize("kind", ["native", "torch"])
def test_somebody_elses_handler_is_called_at_a_whole_state(kind):
    # A handler that raises in the middle of a chunk would leave statistics of steps not counted.
    def handler(number, frame):
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGINT, handler)
    timer = threading.Timer(0.3, os.kill, (os.getpid(), signal.SIGINT))
    try:
        timer.start()
        chains = pf.sample(TARGETS[kind], KERNEL, start(), n_steps=10**9, store="stats", seed=1)
    finally:
        timer.cancel()
        signal.signal(signal.SIGINT, before)
    assert chains.interrupted
    again = pf.sample(TARGETS[kind], KERNEL, start(), n_steps=chains.n_steps, store="stats", seed=1)
    assert same(chains, again)
    assert chains.next_step == again.next_step


def test_interrupt_handler_is_given_back():
    before = signal.getsignal(signal.SIGINT)
    pf.sample(LAW, KERNEL, start(), n_steps=1, seed=0)
    assert signal.getsignal(signal.SIGINT) is before
