"""The head of a network whose features stand: multinomial logistic regression, solved instead of trained.

On a frozen backbone this is all the learning there is; before fine-tuning it is where fine-tuning starts, so that the
first steps do not tear up pretrained features for the sake of a random head (Kumar et al., 2022, "Fine-tuning can
distort pretrained features and underperform out-of-distribution", https://arxiv.org/abs/2202.10054).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor

from clothing_classifier.training.networks import Classifying, Pyramid

STRENGTHS: Final = (0.1, 0.05, 0.02, 0.01)
"""Strengths of the L2 penalty that are tried, the strongest first: each solution is the next one's start."""

_INNER_FOLDS: Final = 3
_ITERATIONS: Final = 60
"""Where features are ill-conditioned this stops short of the exact solution, which on unseen photos is no better."""

Features = npt.NDArray[np.float32]
Labels = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Head:
    """A linear layer from standardised features to logits.

    Attributes:
        centre: what is subtracted from the features, ``float32 [D]``.
        spread: what they are divided by then, ``float32 [D]``.
        weight: ``float32 [classes, D]``.
        bias: ``float32 [classes]``.
        strength: of the L2 penalty, which was chosen within the training part.
    """

    centre: Features
    spread: Features
    weight: npt.NDArray[np.float32]
    bias: npt.NDArray[np.float32]
    strength: float

    def compute_logits(self, features: Features) -> npt.NDArray[np.float32]:
        """Return ``float32 [N, classes]`` of ``float32 [N, D]``."""
        return np.asarray((features - self.centre) / self.spread @ self.weight.T + self.bias, np.float32)

    def install(self, network: Classifying) -> None:
        """Put the layer into a network whose features were the ones it was solved for."""
        features = network.features
        weight, bias = torch.from_numpy(self.weight), torch.from_numpy(self.bias)
        centre, spread = torch.from_numpy(self.centre), torch.from_numpy(self.spread)
        with torch.no_grad():
            if isinstance(features, Pyramid):
                features.centre.copy_(centre)
                features.spread.copy_(spread)
            else:
                weight = weight / spread
                bias = bias - weight @ centre
            network.head.weight.copy_(weight)
            network.head.bias.copy_(bias)


def fit_head(
    views: Sequence[Features], labels: Labels, groups: Labels, classes: int, *, balance: float = 0.0, seed: int = 0
) -> Head:
    """Solve for the head on standardised features, and choose its L2 penalty within the photos given.

    The penalty is the one with the least loss over three inner folds; photos of one group are never on two sides of
    these, so that the choice is made for photos of people who are not known yet.

    Args:
        views: features ``float32 [N, D]`` of the photos, once for each view of them (as they are, mirrored).
        labels: class numbers, ``int64 [N]``.
        groups: number of the sender of each photo, or of the photo itself, ``int64 [N]``.
        classes: the number of classes.
        balance: strength of the logit adjustment, see `Recipe`.
        seed: of the inner folds.

    Returns:
        The head.
    """
    everything = np.concatenate(views)
    mean = everything.mean(0)
    # A feature that never changes tells nothing; dividing by one leaves it at zero.
    spread = everything.std(0)
    spread[spread < 1e-6] = 1.0
    standard = [torch.from_numpy((view - mean) / spread) for view in views]
    truth = torch.from_numpy(labels)

    names = np.unique(groups)
    inner = (np.random.default_rng(seed).permutation(len(names)) % _INNER_FOLDS)[np.searchsorted(names, groups)]
    losses = np.zeros(len(STRENGTHS))
    for fold in range(_INNER_FOLDS):
        teaching, judging = torch.from_numpy(inner != fold), torch.from_numpy(inner == fold)
        if not teaching.any() or not judging.any():
            continue
        parameters = torch.zeros(classes, len(mean) + 1)
        for number, strength in enumerate(STRENGTHS):
            parameters = _solve([standard[0][teaching]], truth[teaching], parameters, strength, balance)
            logits = F.linear(standard[0][judging], parameters[:, 1:], parameters[:, 0])
            losses[number] += float(F.cross_entropy(logits, truth[judging], reduction="sum"))
    best = int(losses.argmin())
    parameters = torch.zeros(classes, len(mean) + 1)
    for strength in STRENGTHS[: best + 1]:
        parameters = _solve(standard, truth, parameters, strength, balance)
    weight, bias = parameters[:, 1:].numpy(), parameters[:, 0].numpy()
    return Head(mean, spread, weight, bias, STRENGTHS[best])


def judge_features(network: Classifying, features: Features) -> npt.NDArray[np.float32]:
    """Return what a network with an installed head says of features that were computed before it was installed.

    Args:
        network: its backbone has not learned since.
        features: ``float32 [N, D]``, as `compute_features` gives them.

    Returns:
        Logits, ``float32 [N, classes]``.
    """
    given = torch.from_numpy(features)
    pyramid = network.features
    with torch.inference_mode():
        if isinstance(pyramid, Pyramid):
            given = (given - pyramid.centre.cpu()) / pyramid.spread.cpu()
        return F.linear(given, network.head.weight.cpu(), network.head.bias.cpu()).numpy()


def _solve(views: Sequence[Tensor], labels: Tensor, start: Tensor, strength: float, balance: float) -> Tensor:
    """Return the parameters ``[classes, 1 + D]``, bias first, that minimise loss and penalty."""
    parameters = start.clone().requires_grad_(True)
    features, truth = torch.cat(list(views)), labels.repeat(len(views))
    prior = torch.bincount(labels, minlength=len(start)).clamp(min=1) / len(labels)
    optimizer = torch.optim.LBFGS(
        [parameters], max_iter=_ITERATIONS, tolerance_grad=1e-5, history_size=10, line_search_fn="strong_wolfe"
    )

    def closure() -> Tensor:
        optimizer.zero_grad()
        logits = F.linear(features, parameters[:, 1:], parameters[:, 0]) + balance * prior.log()
        loss = F.cross_entropy(logits, truth) + strength / 2 * parameters[:, 1:].square().sum()
        loss.backward()  # type: ignore[no-untyped-call]
        return loss

    optimizer.step(closure)  # type: ignore[no-untyped-call]
    return parameters.detach()
