# SPDX-License-Identifier: Apache-2.0
"""How much work the demo does, in full and in its short form."""

from __future__ import annotations

from dataclasses import dataclass

from pushforward import random


@dataclass(frozen=True)
class Settings:
    """The sizes of the demo's runs.

    Attributes:
        n_chains: chains on the ring.
        n_blocks: timed blocks of ``block_steps`` steps that each ring run is cut into.
        block_steps: steps a block.
        n_subsets: disjoint subsets of ``subset_size`` chains that W2 is measured on.
        subset_size: points a subset.
        width: channels of the denoiser's finest scale.
        training_steps: minibatches of ``batch_size`` digits that the denoiser is trained on.
        batch_size: digits a minibatch.
        n_samples: new digits drawn by each of the two reverse processes.
        reverse_steps: steps from noise to data.
        n_splits: random splits of the data behind the Fréchet distance's error bar.

    """

    n_chains: int = 8192
    n_blocks: int = 5
    block_steps: int = 80
    n_subsets: int = 8
    subset_size: int = 1024
    width: int = 24
    training_steps: int = 900
    batch_size: int = 128
    n_samples: int = 256
    reverse_steps: int = 128
    n_splits: int = 10

    @property
    def n_steps(self) -> int:
        """Steps of a ring run."""
        return self.n_blocks * self.block_steps


FULL = Settings()
SHORT = Settings(
    n_chains=4096, n_blocks=3, n_subsets=4, width=16, training_steps=300, batch_size=64,
    reverse_steps=32, n_splits=4,
)  # fmt: skip


@dataclass(frozen=True)
class Seeds:
    """Independent seeds, one for each thing in the demo that draws."""

    start: int
    langevin: int
    plain_torch: int
    exact: int
    floor: int
    network: int
    training: int
    noise: int
    reverse: int
    splits: int

    @staticmethod
    def of(seed: int) -> Seeds:
        """Return the family of seeds that belongs to the demo's seed."""
        names = list(Seeds.__dataclass_fields__)
        return Seeds(**{name: random.fold_in(seed, i) for i, name in enumerate(names)})
