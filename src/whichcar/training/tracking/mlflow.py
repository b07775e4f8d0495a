"""What whichcar logs to MLflow, and how: the other side of `tracking`."""

from __future__ import annotations

import logging
import math
import os
import re
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from whichcar.config.load import as_texts
from whichcar.errors import MissingExtraError, TrackingError
from whichcar.files import (
    BEST,
    CONFIG,
    CURVES,
    ENVIRONMENT,
    HISTORY,
    PLOTS,
    PREDICTIONS,
    REPORT,
    RESOLVED,
    RESULT,
    TRACKING,
    read_json,
    write_json,
)
from whichcar.training.run.folder import Ending
from whichcar.training.run.history import Epoch, read_history

if TYPE_CHECKING:
    from mlflow import MlflowClient

METRICS = ("loss", "accuracy", "val_loss", "val_accuracy", "learning_rate", "images_per_second", "seconds")
FILES = (CONFIG, RESOLVED, HISTORY, CURVES, BEST)
STATUS: Mapping[Ending, str] = {"finished": "FINISHED", "stopped": "KILLED", "failed": "FAILED"}
# Taken where the user has not said otherwise: a server that is down is given up after seconds, not minutes; nothing is
# printed, and nothing is told to MLflow's makers.
DEFAULTS = {
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "10",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    "MLFLOW_DISABLE_TELEMETRY": "true",
}


class Mlflow:
    """A run of MLflow, at the address and in the experiment that MLflow's own environment variables name."""

    def __init__(self, folder: Path) -> None:
        for name, value in DEFAULTS.items():
            os.environ.setdefault(name, value)
        try:
            import mlflow
        except ImportError as error:
            raise MissingExtraError("mlflow", "mlflow") from error
        logging.getLogger("urllib3.connectionpool").setLevel(logging.ERROR)  # it warns at every single attempt
        self._folder, self._record = folder, folder / TRACKING
        self._address: str = mlflow.get_tracking_uri()
        self._known: MlflowClient | None = None
        self._open = False  # whether this process has begun or taken up the run
        self._steps: set[int] = set()

    def check(self, new_run: bool) -> None:
        """Reach the server or store, and find the run that this experiment has there, unless it is to have a new one.

        Raises:
            TrackingError: it has none of that number.
            MlflowException: it cannot be reached, or refuses.
        """
        from mlflow.exceptions import MlflowException

        number = None if new_run else self._number()
        if number is None:
            self._client.get_experiment_by_name(self._name())
            return
        try:
            deleted = self._client.get_run(number).info.lifecycle_stage != "active"
        except MlflowException as error:
            if error.error_code != "RESOURCE_DOES_NOT_EXIST":
                raise
            deleted = True
        if deleted:
            raise TrackingError(
                f"{self._record}: names the run {number}, which is not where MLFLOW_TRACKING_URI points; set that as "
                "it was, or delete the file for a run again"
            )

    def is_down(self, error: Exception) -> bool:
        """True when a server cannot be reached or cannot answer now; a store on this machine is never down."""
        from mlflow.exceptions import MlflowException

        status = error.get_http_status_code() if isinstance(error, MlflowException) else 0
        return self._address.startswith("http") and (status >= 500 or status == 429)

    def begin(self) -> None:
        """Begin the run with the settings as parameters and the environment as tags, or take it up again."""
        self._client.update_run(self._run(), status="RUNNING")

    def log_epochs(self, history: Sequence[Epoch]) -> None:
        """Log the epochs that the run does not have as metrics, by their number.

        After a kill an epoch may be trained again that was logged already: what was logged first stays.
        """
        from mlflow.entities import Metric

        run, now = self._run(), int(1000 * time.time())
        new = [epoch for epoch in history if epoch.epoch not in self._steps]
        for start in range(0, len(new), 100):  # a request may have 1000 metrics
            some = new[start : start + 100]
            metrics = [
                Metric(name, value, now, epoch.epoch)
                for epoch in some
                for name in METRICS
                if math.isfinite(value := getattr(epoch, name))
            ]
            self._client.log_batch(run, metrics=metrics)
            self._steps |= {epoch.epoch for epoch in some}

    def end(self, status: Ending) -> None:
        """Log the curves and the other small files, and close the run."""
        run = self._run()
        for name in FILES:
            if (self._folder / name).is_file():
                self._client.log_artifact(run, str(self._folder / name))
        self._client.set_terminated(run, STATUS[status])

    def log_result(self, result: Mapping[str, Any], folder: Path) -> None:
        """Log the numbers as metrics such as `test.top_1`, and report, plots and tables as files.

        Other images than the experiment's own, or cut ones, have the name of their folder instead of `test`.
        """
        if (self._folder / HISTORY).is_file():
            self.log_epochs(read_history(self._folder / HISTORY))
        own = folder.resolve() == self._folder.resolve()
        place = result["data"]["part"] if own else re.sub(r"[^\w.-]", "_", folder.name, flags=re.ASCII)
        run = self._run()
        for name, value in _numbers(result).items():
            self._client.log_metric(run, f"{place}.{name}", value)
        for name in (RESULT, PREDICTIONS, REPORT):
            self._client.log_artifact(run, str(folder / name), place)
        self._client.log_artifacts(run, str(folder / PLOTS), f"{place}/{PLOTS}")
        # The training was not tracked, or its end was missed.
        if self._content(RESOLVED).get("finished", True) and self._client.get_run(run).info.status != "FINISHED":
            self.end("finished")

    @property
    def _client(self) -> MlflowClient:
        """The client; making one reaches a database already."""
        if self._known is None:
            from mlflow import MlflowClient

            self._known = MlflowClient(self._address)
        return self._known

    def _number(self) -> str | None:
        """Return the run's number as the folder has it."""
        if not self._record.is_file():
            return None
        number = read_json(self._record).get("mlflow")
        return None if number is None else str(number)

    def _run(self) -> str:
        """Return the number of the run, which is begun where there is none and told what the folder says of it."""
        number = self._number()
        if number is None:
            number = self._create()
        if not self._open:
            self._describe(number)
            self._steps = {metric.step for metric in self._client.get_metric_history(number, METRICS[0])}
            self._open = True
        return number

    def _create(self) -> str:
        from mlflow.exceptions import MlflowException

        name = self._name()
        place = self._client.get_experiment_by_name(name)
        if place is None:
            try:
                self._client.create_experiment(name)
            except MlflowException as error:
                if error.error_code != "RESOURCE_ALREADY_EXISTS":  # another training was quicker
                    raise
            place = self._client.get_experiment_by_name(name)
        number = str(self._client.create_run(place.experiment_id, run_name=self._folder.resolve().name).info.run_id)
        write_json(self._record, {"mlflow": number})
        return number

    def _describe(self, number: str) -> None:
        from mlflow.entities import Param, RunTag

        settings = self._content(RESOLVED).get("settings", {})
        parameters = [Param(name, value) for name, value in as_texts(settings).items()]
        for start in range(0, len(parameters), 100):  # as many as a request may have
            self._client.log_batch(number, params=parameters[start : start + 100])
        tags = [RunTag(name, value) for name, value in as_texts(self._content(ENVIRONMENT)).items()]
        self._client.log_batch(number, tags=tags)

    def _content(self, name: str) -> dict[str, Any]:
        return read_json(self._folder / name) if (self._folder / name).is_file() else {}

    @staticmethod
    def _name() -> str:
        return os.environ.get("MLFLOW_EXPERIMENT_NAME") or "Default"


def _numbers(result: Mapping[str, Any]) -> dict[str, float]:
    """Return the numbers of a result.json that are worth a curve."""
    low, high = result["top_1"]["interval_95"]
    numbers = {
        "top_1": result["top_1"]["value"],
        "top_1_low": low,
        "top_1_high": high,
        "top_5": result["top_5"]["value"],
        "pictures": result["data"]["pictures"],
        "unreadable": result["data"]["unreadable"],
        **{name: result[name] for name in ("mean_recall", "log_loss", "pictures_per_second")},
    }
    return {name: float(value) for name, value in numbers.items() if value is not None}
