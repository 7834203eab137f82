"""The training loop: fixed epochs, a checkpoint after each, the same result however often it is stopped."""

from __future__ import annotations

import copy
import math
import os
import time
from collections.abc import Callable, Iterable, Set
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim.swa_utils import get_ema_multi_avg_fn

from clothing_classifier.execution import first_line
from clothing_classifier.training.augmentation import augment, mix
from clothing_classifier.training.graphs import record
from clothing_classifier.training.memory import keep_freed_memory
from clothing_classifier.training.networks import Classifying, hold_still, number_blocks
from clothing_classifier.training.recipe import Recipe
from clothing_classifier.training.threads import limit_threads

Pixels = npt.NDArray[np.uint8]
Labels = npt.NDArray[np.int64]
_INFERENCE_BATCH = 128
_STATISTICS_BATCH = 64


class CheckpointError(Exception):
    """A checkpoint cannot be written, or not continued from; the message names it, the reason and what to do."""


@dataclass(frozen=True, slots=True)
class Step:
    """How far a run is: what `fit` reports after each step."""

    epoch: int
    step: int
    steps_per_epoch: int
    loss: float


def choose_device(name: str) -> torch.device:
    """Return the device called ``auto``, ``cpu``, ``cuda`` or ``mps``; ``auto`` takes the fastest there is.

    All that learns begins here, so the processor's threads are held to the cores that there are to use, too.

    Raises:
        ValueError: the device is not on this machine.
    """
    limit_threads()
    present = {"cpu": True, "cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if name == "auto":
        return torch.device(next(kind for kind in ("cuda", "mps", "cpu") if present[kind]))
    if not present.get(name, False):
        there = ", ".join(kind for kind, here in present.items() if here)
        raise ValueError(f"there is no device {name!r} on this machine; use one of: auto, {there}")
    return torch.device(name)


def fit(
    network: Classifying,
    train: tuple[Pixels, Labels],
    validation: tuple[Pixels, Labels],
    recipe: Recipe,
    *,
    fill: tuple[int, int, int],
    seed: int,
    device: torch.device,
    checkpoint: Path,
    on_step: Callable[[Step], None] = lambda step: None,
) -> tuple[Classifying, list[dict[str, float]]]:
    """Train ``network``, or go on where ``checkpoint`` stopped.

    Every random number of an epoch comes from the seed and the epoch's number, so a run that is killed and started
    again repeats the unfinished epoch exactly and ends with the same parameters. The epochs of a recipe's members are
    numbered through.

    Args:
        network: what training begins with, also where it goes on; it is changed in place.
        train: pixels ``uint8 [N, H, W, 3]`` and class numbers ``int64 [N]``.
        validation: the same of the validation part, for the curves only.
        recipe: how to train.
        fill: colour of what augmentation brings into the picture from outside, 0…255.
        seed: what the random numbers come from.
        device: where to train.
        checkpoint: file that holds the state after each epoch; made if it is not there.
        on_step: called after each step.

    Returns:
        The network with averaged weights, in evaluation mode, and the curves: a row an epoch of each member with
        ``epoch``, ``learning_rate``, ``train_loss``, ``validation_loss``, ``validation_accuracy`` and ``seconds``.

    Raises:
        CheckpointError: the checkpoint is damaged or of another network, or there is no room for it.
    """
    if device.type == "cpu":
        keep_freed_memory()
    network = network.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    still = hold_still(network.features, recipe.still)
    average = copy.deepcopy(network).eval().requires_grad_(False)
    beginning, mean = copy.deepcopy(average), copy.deepcopy(average)  # of each member; of all that are done
    optimizer = _optimizer(network, recipe)
    curves: list[dict[str, float]] = []
    if checkpoint.exists():
        curves = _restore(checkpoint, network, average, mean, optimizer)

    pixels = torch.from_numpy(train[0])
    labels = torch.from_numpy(train[1])
    if device.type == "cuda":
        torch.backends.cudnn.deterministic = True  # the same seed shall give the same run there too
        # The whole set lives on the GPU, so that it never waits for the host.
        pixels, labels = pixels.to(device), labels.to(device)
    classes = network.head.out_features
    background = torch.tensor(fill, dtype=torch.float32, device=device)
    steps = max(1, len(labels) // recipe.batch_size)

    def choose_size(own: int) -> tuple[int, int]:
        height, width = train[0].shape[1:3]
        return recipe.shrink(height, width) if own < recipe.small * recipe.epochs else (height, width)

    def begin_learning() -> None:
        network.train()
        for module in still:
            module.eval()

    forward: Callable[[Tensor], Tensor] = network
    if device.type == "cuda":
        begin_learning()
        counts = {len(batch) for batch in torch.tensor_split(torch.arange(len(labels)), steps)}
        sizes = {choose_size(own) for own in range(recipe.epochs)}
        shapes = [(count, 3, *size) for count in counts for size in sizes]
        forward = record(network, shapes, device, _precision(recipe, device))

    for epoch in range(len(curves), recipe.all_epochs):
        member, own = divmod(epoch, recipe.epochs)
        if own == 0:
            for one in (network, average):
                one.load_state_dict(beginning.state_dict())
            optimizer = _optimizer(network, recipe)
        torch.manual_seed(seed * 1_000_003 + epoch)  # dropout's numbers
        generator = torch.Generator().manual_seed(seed * 1_000_003 + epoch)
        begin_learning()
        losses: list[Tensor] = []
        started = time.monotonic()
        order = torch.randperm(len(labels), generator=generator)
        for step, batch in enumerate(torch.tensor_split(order, steps)):
            taken = own * steps + step + 1
            _set_rate(optimizer, recipe, taken / steps)
            chosen = batch.to(labels.device, non_blocking=True)
            inputs = _to_network(pixels[chosen], device)
            targets = F.one_hot(labels[chosen].to(device), classes).float()
            inputs = augment(inputs, recipe.augmentation, background, generator, choose_size(own))
            inputs, targets = mix(inputs, targets, recipe.augmentation, generator)
            with _precision(recipe, device):
                logits = forward(inputs.contiguous(memory_format=torch.channels_last))
            loss = F.cross_entropy(logits.float(), targets, label_smoothing=recipe.label_smoothing)
            optimizer.zero_grad(set_to_none=True)
            loss.backward()  # type: ignore[no-untyped-call]
            nn.utils.clip_grad_norm_(network.parameters(), 5.0)
            optimizer.step()
            # Early on the average follows closely; otherwise it would long remember the random start.
            _average(average, network, min(recipe.averaging, taken / (taken + 9)))
            losses.append(loss.detach())
            # A step late: who reads a loss waits for its step, and a GPU shall have the next one by then.
            if step > 0:
                on_step(Step(epoch, step, steps, float(losses[step - 1])))
        on_step(Step(epoch, steps, steps, float(losses[-1])))
        scores = torch.from_numpy(compute_logits(average, validation[0]))
        truth = torch.from_numpy(validation[1])
        curves.append(
            {
                "epoch": epoch + 1,
                "learning_rate": optimizer.param_groups[0]["lr"],
                "train_loss": float(np.mean([float(loss) for loss in losses])),
                "validation_loss": float(F.cross_entropy(scores, truth)) if len(truth) else math.nan,
                "validation_accuracy": float((scores.argmax(1) == truth).float().mean()) if len(truth) else math.nan,
                "seconds": round(time.monotonic() - started, 1),
            }
        )
        if own == recipe.epochs - 1:
            _average(mean, average, member / (member + 1))
        _save(checkpoint, network, average, mean, optimizer, curves)
    if recipe.members > 1:
        order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(seed))
        held = {name for name, module in network.named_modules() if module in still}
        batches = torch.tensor_split(order.to(labels.device), max(1, len(order) // _STATISTICS_BATCH))
        _measure_statistics(mean, held, (pixels[batch] for batch in batches), device)
    return mean, curves


@torch.no_grad()
def _measure_statistics(network: nn.Module, held: Set[str], batches: Iterable[Tensor], device: torch.device) -> None:
    """Let the batch normalisations, but for those ``held``, measure what they normalise by anew.

    What flows through averaged weights has other means and variances than the members' statistics average to
    (Izmailov et al., 2018, https://arxiv.org/abs/1803.05407).
    """
    norms = [
        module for name, module in network.named_modules() if isinstance(module, nn.BatchNorm2d) and name not in held
    ]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # all batches count alike
        norm.train()
    for batch in batches:
        network(_to_network(batch, device).contiguous(memory_format=torch.channels_last))
    network.eval()


def compute_logits(network: Classifying, pixels: Pixels) -> npt.NDArray[np.float32]:
    """Return the logits ``float32 [N, classes]`` of ``pixels``, ``uint8 [N, H, W, 3]``, in full precision."""
    return network.judge(embed(network, pixels))


@torch.inference_mode()
def embed(network: Classifying, pixels: Pixels) -> npt.NDArray[np.float32]:
    """Return the embeddings ``float32 [N, D]`` of ``pixels``, ``uint8 [N, H, W, 3]``, in full precision."""
    device = network.head.weight.device
    batches = [
        network.embed(_to_network(torch.from_numpy(pixels[start : start + _INFERENCE_BATCH]), device)).mean((2, 3))
        for start in range(0, len(pixels), _INFERENCE_BATCH)
    ]
    return torch.cat(batches).float().cpu().numpy() if batches else np.empty((0, network.head.in_features), np.float32)


def _to_network(pixels: Tensor, device: torch.device) -> Tensor:
    return pixels.to(device).permute(0, 3, 1, 2).float()


def _precision(recipe: Recipe, device: torch.device) -> torch.autocast:
    # Without instructions of its own, a processor emulates bfloat16 slower than it runs float32.
    native = device.type == "cuda" or (device.type == "cpu" and torch.cpu._is_avx512_bf16_supported())
    # Weights that were cast once cannot be kept: recordings of a GPU's work would go on with the old ones.
    return torch.autocast(
        device.type, torch.bfloat16, enabled=native and recipe.bfloat16, cache_enabled=device.type != "cuda"
    )


def _optimizer(network: Classifying, recipe: Recipe) -> torch.optim.AdamW:
    groups: dict[tuple[float, float], list[nn.Parameter]] = {}
    numbers = number_blocks(name for name, _ in network.named_parameters() if name.startswith("features."))
    last = max(numbers.values(), default=0)
    for name, parameter in network.named_parameters():
        if not parameter.requires_grad:
            continue
        rate = recipe.block_decay ** (last - numbers[name]) if name in numbers else recipe.head_rate
        decay = recipe.weight_decay if parameter.ndim > 1 else 0.0
        groups.setdefault((rate, decay), []).append(parameter)
    return torch.optim.AdamW(
        [{"params": members, "factor": rate, "weight_decay": decay} for (rate, decay), members in groups.items()],
        lr=recipe.learning_rate,
        fused=next(network.parameters()).is_cuda,
    )


def _set_rate(optimizer: torch.optim.Optimizer, recipe: Recipe, progress: float) -> None:
    """Set the rate for ``progress`` epochs: linear warm-up, then a cosine to zero."""
    if progress < recipe.warmup:
        share = progress / recipe.warmup
    else:
        share = 0.5 * (1 + math.cos(math.pi * (progress - recipe.warmup) / max(1e-9, recipe.epochs - recipe.warmup)))
    for group in optimizer.param_groups:
        group["lr"] = recipe.learning_rate * group["factor"] * share


@torch.no_grad()
def _average(average: nn.Module, network: nn.Module, decay: float) -> None:
    ours, theirs = (
        [value for value in one.state_dict().values() if value.is_floating_point()] for one in (average, network)
    )
    # All at once: a GPU would wait for hundreds of small calls.
    get_ema_multi_avg_fn(decay)(ours, theirs, 0)  # type: ignore[no-untyped-call]


def _save(
    checkpoint: Path,
    network: nn.Module,
    average: nn.Module,
    mean: nn.Module,
    optimizer: torch.optim.Optimizer,
    curves: list[dict[str, float]],
) -> None:
    state: dict[str, Any] = {
        "network": network.state_dict(),
        "average": average.state_dict(),
        "mean": mean.state_dict(),
        "optimizer": optimizer.state_dict(),
        "curves": curves,
    }
    # A kill while writing must leave the old checkpoint or the new one, never half of one.
    partial = checkpoint.with_suffix(".partial")
    try:
        with partial.open("wb") as file:
            torch.save(state, file)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(checkpoint)
    except (OSError, RuntimeError) as error:
        # Closing its archive, torch finds that something is missing, and says that in place of why.
        reason = error.__context__ if isinstance(error.__context__, OSError) else error
        raise CheckpointError(
            f"{checkpoint}: cannot be written ({first_line(reason)}); make room there, then repeat the command to go "
            "on from the epoch before"
        ) from error
    finally:
        partial.unlink(missing_ok=True)


def _restore(
    checkpoint: Path, network: nn.Module, average: nn.Module, mean: nn.Module, optimizer: torch.optim.Optimizer
) -> list[dict[str, float]]:
    try:
        state = torch.load(checkpoint, map_location="cpu", weights_only=True)
        network.load_state_dict(state["network"])
        average.load_state_dict(state["average"])
        mean.load_state_dict(state["mean"])
        optimizer.load_state_dict(state["optimizer"])
        curves: list[dict[str, float]] = state["curves"]
    except Exception as error:
        raise CheckpointError(
            f"{checkpoint}: cannot be continued from ({type(error).__name__}); delete it to start this run again"
        ) from error
    return curves
