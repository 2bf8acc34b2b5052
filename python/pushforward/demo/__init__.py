# SPDX-License-Identifier: Apache-2.0
"""``pushforward demo``: a ring sampled three ways, new handwritten digits, and a report."""

from pushforward.demo.main import run_demo

__all__ = ["run_demo"]
