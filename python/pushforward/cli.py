# SPDX-License-Identifier: Apache-2.0
"""The command ``pushforward``: a demonstration and a look at the installation."""

from __future__ import annotations

import argparse
import importlib
import io
import sys
from collections.abc import Sequence
from pathlib import Path

import pushforward

_DEMO_MODULES = ("matplotlib", "sklearn", "scipy")
_USAGE_ERROR = 2
_INTERRUPTED = 130


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code: 0, 2 for a user's error, 130 for Ctrl-C.

    Args:
        arguments: without the program's name; those of the process by default.

    """
    options = _parser().parse_args(arguments)
    try:
        return _demo(options) if options.command == "demo" else _info()
    except KeyboardInterrupt:
        return _complain("interrupted", _INTERRUPTED)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="pushforward", description="Fast, reproducible sampling by transport and denoising."
    )
    parser.add_argument(
        "--version", action="version", version=f"pushforward {pushforward.__version__}"
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="command")
    commands.add_parser("info", help="print version, CPU level, threads and CUDA state")
    demo = commands.add_parser(
        "demo",
        help="sample a ring and draw new digits, and write a report",
        description="Sample an eight-mode ring three ways, learn to draw handwritten digits, "
        "measure both, and write DIR/report.html. Takes one to three minutes on two cores.",
    )
    demo.add_argument(
        "--out", type=Path, default=Path("demo"), metavar="DIR",
        help="where the report goes (default: demo)",
    )  # fmt: skip
    demo.add_argument(
        "--short", action="store_true", help="fewer steps and chains: seconds, rougher digits"
    )
    demo.add_argument(
        "--seed", type=_seed, default=0, help="all random numbers come from it (default: 0)"
    )
    return parser


def _seed(text: str) -> int:
    try:
        value = int(text)
    except ValueError:
        value = -1
    if not 0 <= value < 2**63:
        raise argparse.ArgumentTypeError(f"expected an integer with 0 <= seed < 2**63, got {text}")
    return value


def _info() -> int:
    info = pushforward.build_info()
    width = max(map(len, info))
    for name, value in info.items():
        print(f"{name:<{width}}  {value}")
    return 0


def _demo(options: argparse.Namespace) -> int:
    try:
        for name in _DEMO_MODULES:
            importlib.import_module(name)
    except ImportError as error:
        return _complain(f"the demo needs more ({error}): pip install pushforward[demo]")
    try:
        _check_writable(options.out)
    except OSError as error:
        return _complain(f"--out: cannot write to {options.out}: {error.strerror or error}")
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")  # "±" and "α" are not in every terminal's encoding
    from pushforward.demo import run_demo

    run_demo(options.out, short=options.short, seed=options.seed)
    return 0


def _check_writable(folder: Path) -> None:
    """Make the folder and a file in it now: an error should not come after minutes of work."""
    folder.mkdir(parents=True, exist_ok=True)
    probe = folder / ".write-test"
    probe.touch()
    probe.unlink()


def _complain(message: str, code: int = _USAGE_ERROR) -> int:
    print(f"pushforward: {message}", file=sys.stderr)
    return code
