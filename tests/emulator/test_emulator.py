# SPDX-License-Identifier: Apache-2.0
"""The emulator of CUDA: right kernels give right answers, and each kind of fault is caught."""

import os
import signal
import subprocess
from pathlib import Path

import pytest

HERE = Path(__file__).resolve().parent
SEEDS = range(8)
WRONG_ANSWER = 3  # as in kernels/check.hpp

FLAGS = ["-std=c++17", "-O1", "-g", "-Wall", "-Wextra", "-Wshadow", "-Werror", "-pthread"]
SANITIZERS = ["-fsanitize=address,undefined", "-fno-sanitize-recover=all"]


@pytest.fixture(scope="session")
def programs(tmp_path_factory):
    """The two programs in kernels/, linked to one engine."""
    folder = tmp_path_factory.mktemp("emulator")
    compiler = ["g++", *FLAGS, *SANITIZERS]
    names = {"emulator": "emulator.cpp"}
    names |= {name: f"kernels/{name}.cu.cpp" for name in ("right", "faults")}
    jobs = [
        subprocess.Popen([*compiler, f"-I{HERE}", "-c", HERE / path, "-o", folder / f"{name}.o"])
        for name, path in names.items()
    ]
    assert [job.wait() for job in jobs] == [0, 0, 0]
    for name in ("right", "faults"):
        objects = [folder / f"{name}.o", folder / "emulator.o"]
        subprocess.run([*compiler, *objects, "-o", folder / name], check=True)
    return folder


def run(program, *words, seed=0):
    # Leaks are not the matter here, and looking for them needs rights that containers lack.
    settings = {"PF_EMULATOR_SEED": str(seed), "ASAN_OPTIONS": "detect_leaks=0"}
    return subprocess.run(
        [program, *words],
        env={**os.environ, **settings},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


def assert_right(done):
    assert (done.returncode, done.stdout) == (0, "right\n"), done.stderr
    # At the first switch between fibres the sanitizer says that it might not understand them. It
    # does: the emulator tells it of each.
    rest = [line for line in done.stderr.splitlines() if "makecontext/swapcontext" not in line]
    assert rest == []


@pytest.mark.parametrize(
    "name",
    [
        "block_sum",
        "many_threads",
        "own_copies",
        "warp_sum",
        "shuffles",
        "votes",
        "partial_warp",
        "host_threads",
        "float_state",
        "device",
        "atomics",
        "together",
        "any_of_block",
    ],
)
def test_right_kernels_give_right_answers(programs, name):
    for seed in SEEDS:
        assert_right(run(programs / "right", name, seed=seed))


@pytest.mark.parametrize("name", ["global_write", "shared_write_after", "shared_write_before"])
def test_writes_out_of_bounds_are_reported(programs, name):
    assert_right(run(programs / "faults", name))
    done = run(programs / "faults", name, "fault")
    assert done.returncode not in (0, WRONG_ANSWER)
    assert "AddressSanitizer" in done.stderr
    assert "WRITE of size 8" in done.stderr


@pytest.mark.parametrize(
    "name",
    [
        "missing_syncthreads",
        "missing_reuse",
        "missing_syncwarp",
        "lost_update",
        "missing_grid_barrier",
    ],
)
def test_a_race_gives_a_wrong_answer(programs, name):
    codes = set()
    for seed in SEEDS:
        assert_right(run(programs / "faults", name, seed=seed))
        codes.add(run(programs / "faults", name, "fault", seed=seed).returncode)
    assert WRONG_ANSWER in codes
    assert codes <= {0, WRONG_ANSWER}


def test_uninitialised_shared_memory_is_not_a_number(programs):
    assert_right(run(programs / "faults", "uninitialised"))
    done = run(programs / "faults", "uninitialised", "fault")
    assert done.returncode == WRONG_ANSWER
    assert "nan, not 2" in done.stdout


@pytest.mark.parametrize(
    ("name", "message", "counts"),
    [
        ("early_return", "divergent barrier in block 0", ["100 wait in __s", "28 have returned"]),
        ("two_barriers", "divergent barrier in block 0", ["28 wait in __s", "100 wait in __s"]),
        ("warp_against_block", "divergent barrier in block 0", ["31 wait in __shfl_xor_sync of"]),
        (
            "lane_returns",
            "divergent barrier in block 0",
            ["32 wait in __syncwarp of mask 0x000001ff"],
        ),
        ("two_masks", "divergent barrier in block 0", ["16 wait in __syncwarp of mask 0xfffffffe"]),
        (
            "two_votes",
            "divergent barrier in block 0",
            ["64 wait in __all_sync", "64 wait in __any"],
        ),
        (
            "block_returns",
            "threads wait in vain",
            ["889 wait in __s", "128 have returned"],
        ),
        ("inactive_lane", "shuffle from an inactive lane", ["__shfl_sync of mask 0x0000ffff"]),
        ("own_mask", "lane outside its own mask", ["__syncwarp of mask 0x0000ffff"]),
    ],
)
def test_divergent_barriers_abort(programs, name, message, counts):
    for seed in SEEDS:
        assert_right(run(programs / "faults", name, seed=seed))
        done = run(programs / "faults", name, "fault", seed=seed)
        assert done.returncode == -signal.SIGABRT
        assert f"emulator: {message}" in done.stderr
        for count in counts:
            assert count in done.stderr
        assert "/kernels/" in done.stderr  # the place in the source


@pytest.mark.parametrize("name", ["configuration", "cooperative_limit", "shared_limit"])
def test_launches_over_a_limit_fail_and_run_nothing(programs, name):
    assert_right(run(programs / "faults", name))
    assert_right(run(programs / "faults", name, "fault"))


def test_one_seed_is_one_order(programs):
    out = [run(programs / "faults", "missing_syncthreads", "fault", seed=s).stdout for s in SEEDS]
    again = [run(programs / "faults", "missing_syncthreads", "fault", seed=s).stdout for s in SEEDS]
    assert out == again
    assert len(set(out)) > 1
