# SPDX-License-Identifier: Apache-2.0
"""What tells a run from others whose draws might lie in the same store."""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING

from torch import Tensor

from pushforward.fingerprints import fingerprint
from pushforward.parameters import NamedTarget

if TYPE_CHECKING:
    from pushforward.run import Run

__all__ = ["identity_of"]


def identity_of(run: Run, start: Tensor) -> str:
    """Return a digest of what a run's draws depend on, except the target and their number."""
    plan, law = run.plan, run.target
    shapes = law.parameters.shapes if isinstance(law, NamedTarget) else {}
    facts = {
        "start": fingerprint(start),
        "kernel": [run.kernel.title, fingerprint(run.kernel)],
        "parameters": list(shapes.items()),
        "warmup": plan.warmup,
        "burn_in": plan.burn_in,
        "thin": plan.thin,
        "first_step": plan.first_step,
        "chain_offset": plan.chain_offset,
        "seed": plan.seed,
    }
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:16]
