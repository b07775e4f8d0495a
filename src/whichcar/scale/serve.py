"""The server as a Ray Serve application: replicas on any number of machines, behind Ray's own proxy.

Ray balances the load, batches, limits the queue, replaces replicas and exchanges the model. Routes, upload limits and
answers are the same as in `whichcar serve`.

    whichcar.scale.serve.run(RaySettings(model="cars.whichcar", replicas=2))
    serve run whichcar.scale.serve:application model=cars.whichcar replicas=2
"""

# Annotations are not strings here, because `serve run` reads the type of the settings from them.

import asyncio
import importlib
import os
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ConfigDict, Field

from whichcar.errors import MissingExtraError
from whichcar.inference.released import find_model
from whichcar.serving.handler import Handler
from whichcar.serving.service import Row, Service
from whichcar.serving.settings import Job, ServerSettings, WorkerSetup

if TYPE_CHECKING:
    from fastapi import FastAPI
    from ray.serve import Application

NAME = "whichcar"


class RaySettings(BaseModel):
    """What is served and how; the names are also used in the `args` of a Serve config file."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    model: str | None = Field(None, description="As for `Classifier`; a path must be there on every node.")
    crop: bool | None = Field(None, description="As for `Classifier`.")
    detector: str | None = Field(None, description="As for `Classifier`.")
    family: str | None = Field(None, description="As for `Classifier`.")
    replicas: int = Field(1, ge=1, description="How many processes have the model.")
    cores: int = Field(1, ge=1, description="CPU cores of a replica, each of which runs the network on a batch.")
    batch_size: int = Field(1, ge=1, description="Images per batch at most.")
    batch_wait: float = Field(0.0, ge=0, description="Seconds that a smaller batch waits for more images.")
    max_ongoing_requests: int = Field(8, ge=1, description="Requests that a replica has at once.")
    max_queued_requests: int = Field(128, ge=1, description="Requests that wait in a proxy; more get a 503.")
    timeout: float = Field(20.0, gt=0, description="Seconds for a request in all.")
    tokens: str | None = Field(None, description="File of bearer tokens, on every node; as for `whichcar serve`.")


class ReplicaService(Service):
    """A model in this process, called through Ray's batching.

    Raises:
        WhichcarError: the model or the tokens cannot be loaded.
    """

    def __init__(self, wanted: RaySettings) -> None:
        """Load the model."""
        serve = importlib.import_module("ray.serve")
        tokens = None if wanted.tokens is None else Path(wanted.tokens)
        super().__init__(ServerSettings(timeout=wanted.timeout, tokens=tokens))
        pixels = self.settings.max_pixels
        handler = Handler(WorkerSetup(wanted.model or "", wanted.crop, wanted.detector, wanted.family, pixels))
        self._description = handler.description()
        self._threads = ThreadPoolExecutor(wanted.cores)

        async def classified(jobs: list[Job]) -> list[Row]:
            self.metrics.batch.observe(len(jobs))
            return await asyncio.get_running_loop().run_in_executor(self._threads, handler.rows, jobs)

        batched = serve.batch(
            max_batch_size=wanted.batch_size,
            batch_wait_timeout_s=wanted.batch_wait,
            max_concurrent_batches=wanted.cores,
        )
        self._classified: Callable[[Job], Awaitable[Row]] = batched(classified)
        self.describe()

    @property
    def description(self) -> Row:
        """The description of the model."""
        return self._description

    async def rows(
        self, jobs: Sequence[Job], until: float, gone: Callable[[], Awaitable[None]] | None = None
    ) -> tuple[Row, list[Row]]:
        """Pass the images to Ray's batching and wait for their answers."""
        rows = await self.in_time(asyncio.gather(*map(self._classified, jobs)), until, gone)
        return {name: self.description[name] for name in ("name", "sha256")}, rows

    def close(self) -> None:
        """End the threads."""
        self._threads.shutdown()


def application(settings: RaySettings) -> "Application":
    """Return an application for `serve.run`, or for Serve's command and config files.

    Replicas get the `WHICHCAR_…` variables of this process, unless their node sets its own.

    Raises:
        MissingExtraError: Ray Serve, or a package of the server, is not installed.
        CheckpointError: the released model is requested, but this installation does not have it.
    """
    serve, routes = _needed("ray.serve", "ray"), _needed("whichcar.serving.app", "serve")
    if settings.model is None:
        find_model()

    variables = {name: value for name, value in os.environ.items() if name.startswith("WHICHCAR_")}

    def build() -> "FastAPI":
        os.environ.update({name: value for name, value in variables.items() if name not in os.environ})
        app: FastAPI = routes.create_app(ReplicaService(settings))
        return app

    deployment = serve.deployment(
        serve.ingress(build)(),
        name=NAME,
        num_replicas=settings.replicas,
        ray_actor_options={"num_cpus": settings.cores},
        max_ongoing_requests=settings.max_ongoing_requests,
        max_queued_requests=settings.max_queued_requests,
    )
    bound: Application = deployment.bind()
    return bound


def run(settings: RaySettings, host: str = "127.0.0.1", port: int = 8000, blocking: bool = True) -> None:
    """Serve on the cluster that Ray is connected to, or on a local one, until Ctrl-C.

    Args:
        settings: what is served and how.
        host: address of the proxies.
        port: their port.
        blocking: return only when serving ends; else as soon as it is ready.

    Raises:
        MissingExtraError: Ray Serve, or a package of the server, is not installed.
    """
    serve = _needed("ray.serve", "ray")
    # Ray counts this from the arrival at a proxy, so it is a little longer than a replica's own limit.
    serve.start(http_options={"host": host, "port": port, "request_timeout_s": settings.timeout + 1})
    serve.run(application(settings), name=NAME, blocking=blocking)


def _needed(module: str, extra: str) -> Any:  # noqa: ANN401  (a module)
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        raise MissingExtraError(f"{error.name or 'a package'}, which Ray Serve needs,", extra) from error
