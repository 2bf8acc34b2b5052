# SPDX-License-Identifier: Apache-2.0
"""How good the drawn digits are: as a distribution, as copies, and as digits."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from pushforward.demo.digits import Digits, Drawn
from pushforward.demo.distances import Array, Estimate, frechet, nearest
from pushforward.demo.settings import Seeds, Settings

N_FEATURES = 32
N_CLASSES = 10


@dataclass(frozen=True)
class Quality:
    """What was measured on some digits.

    Attributes:
        name: where they come from.
        frechet: Fréchet distance to data, a mean over random splits of the data; its error is the
            standard deviation over them and, for drawn digits, over bootstrap resamples as well.
        distances: from each digit to the nearest other digit of the data, ``(n,)``.
        neighbours: which that is, ``(n,)``.
        shares: of the ten classes, ``(10,)``.
        confidence: mean probability that the classifier gives its own answer.
        seconds: that drawing took, None for data.

    """

    name: str
    frechet: Estimate
    distances: Array
    neighbours: NDArray[np.intp]
    shares: Array
    confidence: float
    seconds: float | None

    @property
    def covered(self) -> int:
        """How many classes hold at least a third of a tenth."""
        return int((self.shares >= 1 / (3 * N_CLASSES)).sum())


@dataclass(frozen=True)
class Judgement:
    """The quality of data and of what was drawn.

    Attributes:
        data: halves of the data against each other.
        drawn: one for each reverse process.
        accuracy: of the classifier on digits it was not fitted to.

    """

    data: Quality
    drawn: tuple[Quality, ...]
    accuracy: float


def judge(digits: Digits, drawn: tuple[Drawn, ...], settings: Settings, seeds: Seeds) -> Judgement:
    """Measure the drawn digits, and the data by the same rules."""
    data, labels = _flat(digits.images), digits.labels.numpy()
    features = _principal_features(data)
    generator = np.random.default_rng(seeds.splits)
    splits = [
        np.split(generator.permutation(len(data)), [settings.n_samples])
        for _ in range(settings.n_splits)
    ]
    held_out, rest = splits[0]
    classifier = _classifier().fit(data[rest], labels[rest])

    def measure(new: Drawn) -> Quality:
        x = _flat(new.images)
        chances = classifier.predict_proba(x)
        distances, resampled = [], []
        for _, large in splits:
            again = generator.integers(len(x), size=len(x))
            distances.append(frechet(features(x), features(data[large])))
            resampled.append(frechet(features(x[again]), features(data[large])))
        return Quality(
            new.label, _estimate(distances, resampled), *nearest(x, data),
            np.bincount(chances.argmax(1), minlength=N_CLASSES) / len(x),
            float(chances.max(1).mean()), new.seconds,
        )  # fmt: skip

    floor = [frechet(features(data[small]), features(data[large])) for small, large in splits]
    return Judgement(
        data=Quality(
            "real digits", _estimate(floor, floor), *nearest(data, data, same=True),
            np.bincount(labels, minlength=N_CLASSES) / len(labels),
            float(classifier.predict_proba(data[held_out]).max(1).mean()), None,
        ),
        drawn=tuple(measure(new) for new in drawn),
        accuracy=float(classifier.score(data[held_out], labels[held_out])),
    )  # fmt: skip


def _flat(images: Tensor) -> Array:
    return images.flatten(1).double().numpy()


def _principal_features(data: Array) -> Callable[[Array], Array]:
    """Return the map to the data's leading principal components."""
    center = data.mean(0)
    directions = np.linalg.eigh(np.cov(data, rowvar=False))[1][:, -N_FEATURES:]
    return lambda x: (x - center) @ directions


def _classifier() -> Any:
    """Return a support vector machine with probabilities, not yet fitted."""
    from sklearn.calibration import CalibratedClassifierCV
    from sklearn.svm import SVC

    return CalibratedClassifierCV(SVC(C=10.0), ensemble=False)


def _estimate(values: list[float], scattered: list[float]) -> Estimate:
    """Return the mean of ``values`` with the standard deviation of ``scattered``."""
    return Estimate(float(np.mean(values)), float(np.std(scattered, ddof=1)))
