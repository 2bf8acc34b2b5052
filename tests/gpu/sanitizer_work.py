# SPDX-License-Identifier: Apache-2.0
"""Every op and target once, at ragged sizes, for compute-sanitizer: ``python sanitizer_work.py``.

Prints the CPU's digest beside the GPU's, so that a run under the sanitizer checks numbers too.
"""

import hashlib
import sys
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import pushforward as pf
from conftest import ZOO


def everything(device):
    """Return the results of all ops on a device."""
    out = []
    for dtype in (torch.float32, torch.float64):
        x = pf.random.normal(45, 67, seed=1, start=3, dtype=dtype, device=device)
        out += [x, pf.random.uniform(5, 1001, seed=1, start=1, dtype=dtype, device=device)]
        for dim in (67, 64, 3):
            y = x[:, :dim].contiguous()
            out.append(pf.ops.langevin(y, -y, step_size=0.1, seed=2, step=3))
            out.append(pf.ops.diffuse(y, mean_scale=0.5, std=0.3, seed=2))
            out.append(
                pf.ops.reverse_step(
                    y, -y, growth=1.1, drift_scale=0.1, noise_scale=0.2, seed=2, step=1
                )
            )
        for law in ZOO.values():
            start = law.sample(133, seed=1, dtype=dtype).to(device)
            how = {"n_steps": 4, "thin": 2, "seed": 3, "progress": False}
            chains = pf.sample(law, pf.Langevin(0.01), start, **how)
            out += [chains.draws, chains.log_density, chains.mean, chains.var, chains.n_nonfinite]
        bad = torch.zeros(45, dtype=torch.int64, device=device)
        proposed = x.clone()
        proposed[::7, 5] = torch.nan
        out += [pf.ops.commit_(x.clone(), proposed, bad), bad]
    return out


def digest(tensors):
    """Return a digest of all bits."""
    found = hashlib.sha256()
    for t in tensors:
        found.update(t.cpu().contiguous().numpy().tobytes())
    return found.hexdigest()


def main():
    """Compare the two and return the exit status."""
    devices = ["cpu", "cuda"] if torch.cuda.is_available() else ["cpu", "cpu"]
    found = [digest(everything(device)) for device in devices]
    print(*(f"{device} {d}" for device, d in zip(devices, found, strict=True)), sep="\n")
    return int(found[0] != found[1])


if __name__ == "__main__":
    sys.exit(main())
