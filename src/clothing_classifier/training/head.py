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

STRENGTHS: Final = (0.1, 0.05, 0.02, 0.01)
"""Strengths of the L2 penalty that are tried, the strongest first: each solution is the next one's start."""

_INNER_FOLDS: Final = 3
_ITERATIONS: Final = 60
"""Where features are ill-conditioned this stops short of the exact solution, which on unseen photos is no better."""

Features = npt.NDArray[np.float32]
Labels = npt.NDArray[np.int64]
Parameters = npt.NDArray[np.float64]


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

    def fold(self) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
        """Return weight and bias of the same layer for features that are not standardised."""
        weight = self.weight.astype(np.float64) / self.spread
        bias = self.bias - weight @ self.centre
        return weight.astype(np.float32), bias.astype(np.float32)


def fit_head(views: Sequence[Features], labels: Labels, groups: Labels, classes: int, *, seed: int = 0) -> Head:
    """Solve for the head on standardised features, and choose its L2 penalty within the photos given.

    The penalty is the one with the least loss over three inner folds; photos of one group are never on two sides of
    these, so that the choice is made for photos of people who are not known yet.

    Args:
        views: features ``float32 [N, D]`` of the photos, once for each view of them (as they are, mirrored).
        labels: class numbers, ``int64 [N]``.
        groups: number of the sender of each photo, or of the photo itself, ``int64 [N]``.
        classes: the number of classes.
        seed: of the inner folds.

    Returns:
        The head.
    """
    everything = np.concatenate(views)
    mean = everything.mean(0)
    # A feature that never changes tells nothing; dividing by one leaves it at zero.
    spread = everything.std(0)
    spread[spread < 1e-6] = 1.0
    standard = (everything - mean) / spread
    first = standard[: len(labels)]

    names = np.unique(groups)
    inner = (np.random.default_rng(seed).permutation(len(names)) % _INNER_FOLDS)[np.searchsorted(names, groups)]
    losses = np.zeros(len(STRENGTHS))
    for fold in range(_INNER_FOLDS):
        teaching, judging = inner != fold, inner == fold
        if not teaching.any() or not judging.any():
            continue
        parameters = np.zeros((classes, 1 + len(mean)))
        taught, unseen, truth = first[teaching], first[judging], labels[judging]
        for number, strength in enumerate(STRENGTHS):
            parameters = _solve(taught, labels[teaching], parameters, strength)
            likelihood = _log_softmax(_judge(parameters, unseen))
            losses[number] -= likelihood[np.arange(len(truth)), truth].sum()
    best = int(losses.argmin())
    parameters = np.zeros((classes, 1 + len(mean)))
    for strength in STRENGTHS[: best + 1]:
        parameters = _solve(standard, np.tile(labels, len(views)), parameters, strength)
    weight, bias = parameters[:, 1:].astype(np.float32), parameters[:, 0].astype(np.float32)
    return Head(mean, spread, weight, bias, STRENGTHS[best])


def measure_loss(
    parameters: Parameters, features: Features, labels: Labels, strength: float
) -> tuple[float, Parameters]:
    """Return what the head minimises, and its gradient.

    The products with the features, which take all the time, are in single precision; everything else is in double.

    Args:
        parameters: ``float64 [classes, 1 + D]``, the bias first.
        features: ``float32 [N, D]``, standardised.
        labels: ``int64 [N]``.
        strength: of the L2 penalty, which leaves the bias alone.

    Returns:
        Mean cross-entropy plus ``strength / 2`` times the sum of the squared weights, and the gradient in the shape of
        the parameters.
    """
    rows = np.arange(len(labels))
    likelihood = _log_softmax(_judge(parameters, features))
    weight = parameters[:, 1:]
    loss = -likelihood[rows, labels].mean() + strength / 2 * np.square(weight).sum()
    error = np.exp(likelihood)
    error[rows, labels] -= 1
    error /= len(labels)
    gradient = np.empty_like(parameters)
    gradient[:, 0] = error.sum(0)
    gradient[:, 1:] = error.T.astype(np.float32) @ features
    gradient[:, 1:] += strength * weight
    return float(loss), gradient


def _solve(features: Features, labels: Labels, start: Parameters, strength: float) -> Parameters:
    """Return the parameters that minimise loss and penalty, from those of a stronger penalty."""
    from scipy.optimize import minimize

    def objective(flat: npt.NDArray[np.float64]) -> tuple[float, npt.NDArray[np.float64]]:
        loss, gradient = measure_loss(flat.reshape(start.shape), features, labels, strength)
        return loss, gradient.ravel()

    options = {"maxiter": _ITERATIONS, "maxfun": 2 * _ITERATIONS, "gtol": 1e-5, "ftol": 1e-10}
    found = minimize(objective, start.ravel(), jac=True, method="L-BFGS-B", options=options)
    return np.asarray(found.x, np.float64).reshape(start.shape)


def _judge(parameters: Parameters, features: Features) -> npt.NDArray[np.float64]:
    products = features @ parameters[:, 1:].T.astype(np.float32)
    return np.asarray(products.astype(np.float64) + parameters[:, 0])


def _log_softmax(logits: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    shifted = logits - logits.max(1, keepdims=True)
    return np.asarray(shifted - np.log(np.exp(shifted).sum(1, keepdims=True)), np.float64)
