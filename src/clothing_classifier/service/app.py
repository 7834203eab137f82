"""The HTTP app."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from http import HTTPStatus
from typing import Annotated, Any, Final

from fastapi import FastAPI, Query, Request
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.responses import PlainTextResponse, Response
from starlette.types import ASGIApp

from clothing_classifier.card import ModelFile
from clothing_classifier.classifier import Classifier
from clothing_classifier.execution import Choice
from clothing_classifier.machine import share_cores
from clothing_classifier.service import description
from clothing_classifier.service import metrics as figures
from clothing_classifier.service.admission import Admission
from clothing_classifier.service.guard import Guard, respond
from clothing_classifier.service.metrics import Metrics
from clothing_classifier.service.pages import POLICY, File, make_file, read_pages
from clothing_classifier.service.pipeline import Answer, Pipeline
from clothing_classifier.service.problems import PhotoTrouble, Problem, of_status
from clothing_classifier.service.settings import Settings
from clothing_classifier.service.uploads import read_uploads

_TOP: Final = 5

_FAILING: Final = 3
"""Batches in a row that the model must fail at before the service says that it is of no use."""


class Service:
    """A model, ready to be served.

    Attributes:
        admission: what is under way; set ``stopping`` to take nothing new.
        app: the ASGI app.
    """

    def __init__(
        self,
        model: ModelFile,
        settings: Settings,
        *,
        threshold: float | None = None,
        threads: int | None = None,
        provider: Choice = "auto",
    ) -> None:
        workers, together = share_cores(threads)
        classifier = Classifier(model, threshold=threshold, threads=together, provider=provider)
        self.settings = settings
        self.admission = Admission(settings)
        self._classifier = classifier
        self._identity = {
            "name": classifier.card.name,
            "version": classifier.card.version,
            "digest": hashlib.sha256(model.content).hexdigest(),
            "threshold": classifier.threshold,
        }
        self._metrics = Metrics()
        self._pipeline = Pipeline(classifier, settings, self._metrics, self.admission, workers)
        self._ready = False
        self._metrics.watch(
            "requests_under_way", "Requests that are read or computed.", lambda: self.admission.under_way
        )
        self._metrics.watch(
            "readers_under_way", "Those of them whose bodies are still read.", lambda: self.admission.readers
        )
        self._metrics.watch(
            "photos_under_way", "Photos that wait, are decoded or computed.", lambda: self.admission.photos
        )
        self._metrics.watch("queue_photos", "Photos that wait for the model.", lambda: self._pipeline.batcher.waiting)
        self._metrics.watch("held_bytes", "Bytes of bodies in memory.", lambda: self.admission.bytes)
        self._pages = read_pages()
        self._described: tuple[dict[str, Any], File] | None = None
        self.app: ASGIApp = self._build()

    @property
    def name(self) -> str:
        """What people call the model."""
        return self._classifier.card.name

    def _build(self) -> ASGIApp:
        app = FastAPI(
            title=description.TITLE,
            version="1",
            lifespan=self._live,
            openapi_url=None,
            docs_url=None,
            redoc_url=None,
            redirect_slashes=False,
            generate_unique_id_function=lambda route: route.name,  # how generated clients call their functions
        )
        for error in (Problem, HTTPException, RequestValidationError, Exception):
            app.add_exception_handler(error, self._refuse)
        app.add_exception_handler(ClientDisconnect, _leave)
        body = description.body_of(self.settings)
        answers = description.predictions_of(self._identity, self._classifier.labels)
        app.post("/v1/predictions", responses=answers, openapi_extra=body)(self.predict)
        app.get("/v1/model", responses=description.MODEL)(self.model)
        app.get("/healthz", responses=description.HEALTH)(self.health)
        app.get("/readyz", responses=description.READINESS)(self.readiness)
        app.get("/metrics", response_class=PlainTextResponse, responses=description.METRICS)(self.figures)
        for path, endpoint in (
            ("/", self.page),
            ("/page/{name}", self.page),
            ("/openapi.json", self.openapi),
            ("/docs", self.documentation),
        ):
            app.get(path, include_in_schema=False)(endpoint)
        paths = {getattr(route, "path", "") for route in app.routes}
        return Guard(app, self.settings, paths, self._metrics, self.admission)

    @asynccontextmanager
    async def _live(self, app: FastAPI) -> AsyncIterator[None]:
        await self._pipeline.start()
        self._ready = True
        yield
        self._ready = False
        await self._pipeline.stop()

    async def predict(
        self,
        request: Request,
        top: Annotated[int, Query(ge=1, le=100, description="How many classes to tell of each photo.")] = _TOP,
        evidence: Annotated[bool, Query(description="Whether to draw where the model sees the class.")] = False,
        preview: Annotated[
            bool, Query(description="Whether to give a small picture, for browsers that cannot show the file.")
        ] = False,
    ) -> Response:
        """Classify one photo, or several in one request.

        Send a photo's bytes as the body, or files as a form. In a form each photo has a result of its own, in their
        order: a photo that cannot be read is an `error` with its reason, and the others are classified.
        """
        with self.admission.body() as hold:
            with self.admission.reader():
                uploads = await read_uploads(request, self.settings, self.admission, hold)
            with self.admission.request():
                work = asyncio.create_task(self._pipeline.classify(uploads.files, evidence=evidence, preview=preview))
                gone = asyncio.create_task(_gone(request))
                try:
                    await asyncio.wait({work, gone}, return_when=asyncio.FIRST_COMPLETED)
                    if not work.done():
                        raise ClientDisconnect
                    answers = work.result()
                finally:
                    work.cancel()
                    gone.cancel()
        first = answers[0]
        if uploads.alone and isinstance(first, PhotoTrouble):
            problem = Problem(first.kind, first.reason)
            if problem.status == HTTPStatus.SERVICE_UNAVAILABLE:
                problem.headers["Retry-After"] = str(self.admission.advice)
            raise problem
        results = [
            {"name": file.name} | _result(answer, top) for file, answer in zip(uploads.files, answers, strict=True)
        ]
        return _json({"model": self._identity, "results": results})

    async def model(self) -> Response:
        """Tell the model."""
        limits = {
            "bytes": self.settings.bytes,
            "pixels": self.settings.pixels,
            "files": self.settings.files,
            "request_bytes": self.settings.request_bytes,
        }
        card = json.loads(self._classifier.card.to_json())
        return _json({**self._identity, "card": card, "labels": self._classifier.labels, "limits": limits})

    async def health(self) -> Response:
        """Tell whether the process is of use; otherwise whoever supervises it may start another."""
        self._require_model()
        return _json({"status": "alive"})

    async def readiness(self) -> Response:
        """Tell whether requests are taken."""
        if self.admission.stopping or not self._ready:
            raise Problem("stopping", "The service is stopping.", headers={"Retry-After": "5"})
        self._require_model()
        return _json({"status": "ready"})

    def _require_model(self) -> None:
        if (failures := self._pipeline.batcher.failures) >= _FAILING:
            raise Problem("failing", f"The model has failed {failures} times in a row; the log says why.")

    async def figures(self) -> Response:
        """Tell the service's figures."""
        return Response(self._metrics.text(), media_type=figures.MEDIA_TYPE)

    async def openapi(self, request: Request) -> Response:
        """Give the API's description."""
        return _give(request, self._description(request.app)[1], POLICY)

    async def documentation(self, request: Request) -> Response:
        """Give the API's description as a page."""
        page = description.write_page(self._description(request.app)[0], str(request.base_url))
        return _give(request, make_file(page.encode(), "text/html; charset=utf-8"), description.POLICY)

    def _description(self, app: FastAPI) -> tuple[dict[str, Any], File]:
        if self._described is None:  # it takes time, and starting shall not
            document = description.complete(app.openapi(), self.settings)
            self._described = document, make_file(json.dumps(document).encode(), "application/json")
        return self._described

    async def _refuse(self, request: Request, error: Exception) -> Response:
        problem = _problem_of(error)
        self._metrics.errors.labels("request", problem.kind).inc()
        return respond(problem)

    async def page(self, request: Request, name: str = "index.html") -> Response:
        """Give a file of the page."""
        file = self._pages.get(name)
        if file is None:
            raise Problem("not-found", "There is nothing here.")
        return _give(request, file, POLICY)


def _give(request: Request, file: File, policy: str) -> Response:
    headers = {"ETag": file.tag, "Cache-Control": "no-cache", "Content-Security-Policy": policy}
    if file.tag in [tag.strip().removeprefix("W/") for tag in request.headers.get("if-none-match", "").split(",")]:
        return Response(status_code=304, headers=headers)
    return Response(file.content, headers=headers, media_type=file.media_type)


def _result(answer: Answer | PhotoTrouble, top: int) -> dict[str, Any]:
    if isinstance(answer, PhotoTrouble):
        return {"error": {"kind": answer.kind, "reason": answer.reason}}
    prediction = answer.prediction
    result = {
        "answer": prediction.answer,
        "sure": prediction.sure,
        "label": prediction.label,
        "probability": prediction.probability,
        "labels": [{"label": label, "probability": probability} for label, probability in prediction.top(top)],
    }
    if answer.evidence is not None:
        result["evidence"] = {"label": prediction.label, "png": base64.b64encode(answer.evidence).decode()}
    if answer.preview is not None:
        jpeg = base64.b64encode(answer.preview).decode()
        result["preview"] = {"jpeg": jpeg, "width": answer.width, "height": answer.height}
    return result


def _json(values: Any) -> Response:
    return Response(json.dumps(values).encode(), media_type="application/json")


async def _leave(request: Request, error: Exception) -> Response:
    return Response(status_code=499)  # as nginx counts it; nobody is there to read it


async def _gone(request: Request) -> None:
    """Wait until the client goes away."""
    while (await request.receive())["type"] != "http.disconnect":
        pass


def _problem_of(error: Exception) -> Problem:
    if isinstance(error, Problem):
        return error
    if isinstance(error, RequestValidationError):
        return Problem("invalid", "; ".join(f"{fault['loc'][-1]}: {fault['msg']}" for fault in error.errors()))
    if isinstance(error, HTTPException):
        problem = of_status(error.status_code)
        problem.headers |= error.headers or {}
        return problem
    return Problem("internal", "The service failed on this request; its log says why.")
