# SPDX-License-Identifier: Apache-2.0
"""Seeds and noise: random numbers as a pure function of (seed, purpose, chain, entry).

Every chain owns endless sequences of numbers, one a purpose, and there is no generator state.
Entry ``n`` of a sequence comes from Philox4x32-10 with the seed as key and the counter
(block: 64 bits, chain: 56 bits, purpose: 8 bits). See ``docs/noise.md`` for the whole contract.

Reference: J. K. Salmon et al. (2011), Parallel random numbers: as easy as 1, 2, 3, SC11.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

import torch
from torch import Tensor

from pushforward import _ops, _reference
from pushforward._ops.arrays import is_array, tensor_of

__all__ = ["CONTRACT_VERSION", "PURPOSES", "fold_in", "normal", "resolve_seed", "uniform"]

CONTRACT_VERSION = 1
"""Version of the noise contract; a change of any number that it gives would change it."""

PURPOSES: Mapping[str, int] = MappingProxyType(
    {
        "user": 0,
        "proposal": 1,
        "accept": 2,
        "swap": 3,
        "init": 4,
        "target": 5,
        "forward": 6,
        "reverse": 7,
        "momentum": 8,
        "tree": 9,
        "site": 10,
        "adaptation": 11,
        "data": 12,
        "choice": 13,
        "fold": 14,
        "time": 15,
    }
)
"""The frozen table of purposes: every public function that draws has a sequence of its own."""


def resolve_seed(seed: int | torch.Generator | None) -> int:
    """Return the integer that a ``seed`` argument stands for.

    Args:
        seed: an int with ``0 <= seed < 2**63``, a ``torch.Generator`` that one is drawn from, or
            ``None`` to draw one from torch's default generator, so that ``torch.manual_seed``
            governs it.

    Raises:
        TypeError: ``seed`` is none of these.
        ValueError: the int is out of range.

    Example:
        >>> import pushforward as pf
        >>> pf.random.resolve_seed(7)
        7

    """
    if seed is None or isinstance(seed, torch.Generator):
        device = "cpu" if seed is None else seed.device
        drawn = torch.randint(2**63 - 1, (), dtype=torch.int64, generator=seed, device=device)
        return int(drawn)
    value = _ops.whole(seed, "seed", "an int, a torch.Generator or None")
    if not 0 <= value < 2**63:
        raise ValueError(f"seed: expected 0 <= seed < 2**63, got {value}")
    return value


def fold_in(seed: int, i: int) -> int:
    """Return seed number ``i`` of a family of independent seeds made from ``seed``.

    Args:
        seed: the parent, ``0 <= seed < 2**63``.
        i: which child, ``0 <= i < 2**64``.

    Raises:
        TypeError: an argument is not an int.
        ValueError: an argument is out of range.

    Example:
        >>> import pushforward as pf
        >>> pf.random.fold_in(0, 1) == pf.random.fold_in(0, 2)
        False

    """
    seed = resolve_seed(seed)
    i = _ops.whole(i, "i")
    if not 0 <= i < 2**64:
        raise ValueError(f"i: expected 0 <= i < 2**64, got {i}")
    counter = (i & 0xFFFFFFFF, i >> 32, 0, PURPOSES["fold"] << 24)
    words = _reference.philox_words(counter, (seed & 0xFFFFFFFF, seed >> 32))
    return (words[1] << 32 | words[0]) >> 1


def normal(
    n_chains: int,
    n: int,
    *,
    seed: int | torch.Generator | None = None,
    purpose: str = "user",
    start: int = 0,
    chain_offset: int = 0,
    dtype: torch.dtype = torch.float32,
    device: torch.device | str = "cpu",
    out: Tensor | None = None,
) -> Tensor:
    """Return standard normals, entries ``start .. start + n - 1`` of each chain's sequence.

    Args:
        n_chains: number of rows; row ``i`` is chain ``chain_offset + i``.
        n: number of entries a chain.
        seed: see :func:`resolve_seed`.
        purpose: a key of :data:`PURPOSES`; ``"user"`` is used by nothing else in the package.
        start: first entry.
        chain_offset: global index of the first chain.
        dtype: ``torch.float32`` or ``torch.float64``; the two precisions are different numbers.
        device: where the result lives.
        out: a contiguous ``(n_chains, n)`` tensor, or an array of another library, to write into;
            its type and device then count.

    Returns:
        A ``(n_chains, n)`` tensor, or ``out``.

    Raises:
        TypeError: an argument has the wrong type.
        ValueError: a count is negative, an index out of range, or ``out`` has another shape.

    Example:
        >>> import pushforward as pf, torch
        >>> z = pf.random.normal(4, 10, seed=1)
        >>> torch.equal(z[2:, 3:], pf.random.normal(2, 7, seed=1, start=3, chain_offset=2))
        True

    """
    seed = resolve_seed(seed)
    code = _purpose_code(purpose)
    numbers = _output(n_chains, n, dtype, device, out)
    _ops.fill_(
        numbers, uniform=False, seed=seed, purpose=code, chain_offset=chain_offset, start=start
    )
    return numbers if out is None else out


def uniform(
    n_chains: int,
    n: int,
    *,
    seed: int | torch.Generator | None = None,
    purpose: str = "user",
    start: int = 0,
    chain_offset: int = 0,
    dtype: torch.dtype = torch.float32,
    device: torch.device | str = "cpu",
    out: Tensor | None = None,
) -> Tensor:
    """Return uniforms in (0, 1], entries ``start .. start + n - 1`` of each chain's sequence.

    The uniform and the normal entries of one purpose are made of the same words; take two
    purposes or two seeds where both are wanted. Arguments and errors as in :func:`normal`.

    Example:
        >>> import pushforward as pf
        >>> u = pf.random.uniform(1000, 3, seed=1)
        >>> bool((u > 0).all() and (u <= 1).all())
        True

    """
    seed = resolve_seed(seed)
    code = _purpose_code(purpose)
    numbers = _output(n_chains, n, dtype, device, out)
    _ops.fill_(
        numbers, uniform=True, seed=seed, purpose=code, chain_offset=chain_offset, start=start
    )
    return numbers if out is None else out


def _purpose_code(purpose: str) -> int:
    if not isinstance(purpose, str):
        raise TypeError(f"purpose: expected a str, got {type(purpose).__name__}")
    if purpose not in PURPOSES:
        raise ValueError(f"purpose: expected one of {', '.join(PURPOSES)}, got {purpose!r}")
    return PURPOSES[purpose]


def _output(
    n_chains: int, n: int, dtype: torch.dtype, device: torch.device | str, out: Tensor | None
) -> Tensor:
    shape = (_ops.count(n_chains, "n_chains"), _ops.count(n, "n"))
    if not isinstance(device, (str, torch.device)):
        raise TypeError(f"device: expected a torch.device, got {type(device).__name__}")
    if out is None:
        return _ops.empty(shape, dtype=dtype, device=torch.device(device))
    if is_array(out):
        out = tensor_of(out, "out", written=True)
    if not isinstance(out, Tensor):
        raise TypeError(f"out: expected a torch.Tensor, got {type(out).__name__}")
    if tuple(out.shape) != shape:
        raise ValueError(f"out: expected shape {shape}, got {tuple(out.shape)}")
    if out.requires_grad and torch.is_grad_enabled():
        raise ValueError("out: expected a tensor that does not require grad, got one that does")
    return out
