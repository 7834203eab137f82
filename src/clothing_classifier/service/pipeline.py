"""A photo's bytes → its prediction, with those of others."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from time import perf_counter
from typing import Final

import numpy as np

from clothing_classifier.classifier import Classifier, Prediction
from clothing_classifier.machine import MOST_WORKERS, available_cores
from clothing_classifier.service.admission import Admission
from clothing_classifier.service.batching import Batcher
from clothing_classifier.service.decoding import Decoders, Prepared
from clothing_classifier.service.evidence import draw_evidence, draw_preview
from clothing_classifier.service.metrics import Metrics
from clothing_classifier.service.problems import PhotoTrouble
from clothing_classifier.service.settings import Settings
from clothing_classifier.service.uploads import Upload

BATCH: Final = 8
"""Photos that are computed together, but where each core computes its own: there the first would wait for the last."""

_AT_ONCE: Final = 8  # photos of one request, so that a request of many does not delay those of one


@dataclass(frozen=True, slots=True)
class _Item:
    prepared: Prepared
    evidence: bool
    preview: bool


@dataclass(frozen=True, slots=True)
class Answer:
    """What the model says of one photo.

    Attributes:
        prediction: the classes.
        evidence: where it sees the most probable one, as a PNG, if that was asked for.
        preview: the photo itself, as a JPEG, if that was.
        width: of the preview, in pixels.
        height: likewise.
    """

    prediction: Prediction
    evidence: bytes | None
    preview: bytes | None
    width: int
    height: int


class Pipeline:
    """Decodes and computes photos.

    Args:
        classifier: the model.
        settings: the limits.
        metrics: told how long things take.
        admission: told the same.
        workers: how many cores compute side by side, if cores do.
    """

    def __init__(
        self, classifier: Classifier, settings: Settings, metrics: Metrics, admission: Admission, workers: int
    ) -> None:
        self._classifier = classifier
        self._settings = settings
        self._metrics = metrics
        self._admission = admission
        self.decoders = Decoders(
            classifier.card.resizing,
            max_bytes=settings.bytes,
            max_pixels=settings.pixels,
            seconds=settings.seconds,
            processes=settings.decoders or min(available_cores(), MOST_WORKERS),
            observe=metrics.decoding.observe,
        )
        self._workers = workers if classifier.on_cores else 1
        self.batcher = Batcher(
            self._compute,
            most=1 if classifier.on_cores else BATCH,
            workers=self._workers,
            coming=lambda: self.decoders.active,
        )

    async def start(self) -> None:
        """Get ready; the first photo is then as fast as any other."""
        resizing = self._classifier.card.resizing
        blank = np.zeros((1, resizing.height, resizing.width, 3), np.uint8)
        self.batcher.start()
        await asyncio.gather(self.decoders.start(), asyncio.to_thread(self._classifier.run, blank))

    async def stop(self) -> None:
        """Stop; what is under way is lost."""
        await self.batcher.stop()
        await self.decoders.stop()

    async def classify(self, files: Sequence[Upload], *, evidence: bool, preview: bool) -> list[Answer | PhotoTrouble]:
        """Classify a request's photos, in their order.

        Args:
            files: the photos.
            evidence: whether to draw the evidence for the most probable classes.
            preview: whether to draw the photos.

        Raises:
            ModelError: the model fails.
        """
        room = asyncio.Semaphore(_AT_ONCE)
        tasks = [asyncio.create_task(self._classify(file, evidence, preview, room)) for file in files]
        with self._admission.work(len(files)):
            try:
                _, late = await asyncio.wait(tasks, timeout=self._settings.request_seconds)
            finally:
                for task in tasks:
                    task.cancel()
        missed = PhotoTrouble(
            "not-reached", "was not reached in time, as the service has too much to do; send it again"
        )
        answers = [missed if task in late else task.result() for task in tasks]
        for answer in answers:
            if isinstance(answer, PhotoTrouble):
                self._metrics.errors.labels("photo", answer.kind).inc()
            else:
                self._metrics.photos.labels(str(answer.prediction.sure).lower()).inc()
        return answers

    async def _classify(
        self, file: Upload, evidence: bool, preview: bool, room: asyncio.Semaphore
    ) -> Answer | PhotoTrouble:
        if file.trouble is not None:
            return file.trouble
        async with room:
            try:
                prepared = await self.decoders.decode(file.content)
            except PhotoTrouble as trouble:
                return trouble
            return await self.batcher.submit(_Item(prepared, evidence, preview))

    def _compute(self, items: Sequence[_Item]) -> list[Answer]:
        started = perf_counter()
        classifier = self._classifier
        pixels = np.stack([item.prepared.pixels for item in items])
        if any(item.evidence for item in items):
            output = classifier.run(pixels)
            probabilities, maps = output.probabilities, output.evidence
        else:
            probabilities, maps = classifier.compute_probabilities(pixels), None
        answers = []
        for number, (item, prediction) in enumerate(zip(items, classifier.rank(probabilities), strict=True)):
            width, height, drawn = item.prepared.width, item.prepared.height, None
            if item.evidence and maps is not None:
                map_ = maps[number, classifier.labels.index(prediction.label)]
                drawn = draw_evidence(map_, classifier.card.resizing, width, height)
            preview = draw_preview(item.prepared.pixels, width, height) if item.preview else None
            answers.append(Answer(prediction, drawn, preview, width, height))
        seconds = perf_counter() - started
        self._metrics.batches.observe(len(items))
        self._metrics.batch_seconds.observe(seconds)
        self._admission.computed(len(items) * self._workers, seconds)
        return answers
