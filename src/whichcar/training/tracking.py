"""Experiment tracking with MLflow: the files of a run's folder are also logged to a server or a local store.

Everything that is sent is read from the folder, and compared with what MLflow already has. So nothing has to be kept in
memory while a server is down, and a later call sends whatever is missing.
"""

from __future__ import annotations

import contextlib
import logging
import math
import os
import re
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from whichcar import files
from whichcar.config.load import as_texts
from whichcar.errors import ConfigError, Interrupted, TrackingError, WhichcarError, extra
from whichcar.text import first_line
from whichcar.training.run.history import Epoch, read_history
from whichcar.training.run.refits import experiment_name

if TYPE_CHECKING:
    from mlflow import MlflowClient

log = logging.getLogger(__name__)
METRICS = ("loss", "accuracy", "val_loss", "val_accuracy", "learning_rate", "images_per_second", "seconds")
# A server that is down may cost at most a twentieth of the time, and is tried at most once a minute.
PAUSE_SECONDS, SHARE = 60.0, 20
# Used unless the user has set them: a server that is down is given up after seconds, not minutes; nothing is printed,
# and no usage data is sent to MLflow's developers.
DEFAULTS = {
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "10",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    "MLFLOW_DISABLE_TELEMETRY": "true",
}


class Tracking:
    """The MLflow run of an experiment's folder, at the address in MLflow's own environment variables.

    Without a folder, nothing is tracked. After `connect`, MLflow's errors never end the work: the first is logged as a
    warning.
    """

    def __init__(self, folder: Path | None = None) -> None:
        self._folder = folder or Path()
        self._is_off = folder is None
        self._is_begun = False  # whether this process has created or resumed the run
        self._logged: set[int] = set()  # epochs that the run already has
        self._made: MlflowClient | None = None
        self._warned, self._not_before = False, 0.0

    def connect(self, new_run: bool) -> None:
        """Connect to MLflow and look up the existing run of this experiment, unless `new_run`.

        Raises:
            MissingExtraError: MLflow is not installed.
            DataError: the file that names the run is damaged.
            TrackingError: MLflow refuses, or has no such run. A server that is down is tried again later instead.
        """
        began = time.monotonic()
        try:
            self._check_run(new_run)
        except WhichcarError:
            raise
        except Exception as error:
            if not self._is_down(error):
                raise TrackingError(f"--track mlflow: {first_line(error)}; fix its address or its settings") from error
            self._warn(error, time.monotonic() - began)

    @contextlib.contextmanager
    def training(self) -> Iterator[None]:
        """Close the run when the block ends, after sending the epochs that it missed."""
        status = "FAILED"
        try:
            yield
            status = "FINISHED"
        except (Interrupted, KeyboardInterrupt):
            status = "KILLED"
            raise
        finally:
            if (self._folder / files.RESOLVED).is_file():
                self._send_last(lambda: self._end(status))

    def begin(self, history: Sequence[Epoch]) -> None:
        """Begin the run, or resume it after these epochs."""

        def send() -> None:
            self._client.update_run(self._run(), status="RUNNING")
            self._log_epochs(history)

        if time.monotonic() >= self._not_before:
            self._send(send)

    def epochs(self, history: Sequence[Epoch]) -> None:
        """Log the epochs so far, unless the server was recently found to be down."""
        if time.monotonic() >= self._not_before:
            self._send(lambda: self._log_epochs(history))

    def result(self, result: Mapping[str, Any], folder: Path) -> None:
        """Log an evaluation, with the epochs that the run does not have yet.

        Args:
            result: the content of result.json.
            folder: the folder of result.json, with predictions.csv, report.html and plots.
        """
        self._send_last(lambda: self._log_result(result, folder))

    def _send(self, send: Callable[[], None]) -> bool:
        """Call `send` and return whether it succeeded."""
        began = time.monotonic()
        try:
            if not self._is_off:
                send()
        except Exception as error:  # no error here may end hours of training
            self._warn(error, time.monotonic() - began)
            return False
        return True

    def _send_last(self, send: Callable[[], None]) -> None:
        if not self._send(send):
            log.warning("tracking: not all has been logged; the same command logs what is missing")

    def _warn(self, error: Exception, seconds: float) -> None:
        """Warn about the first failure, and wait before trying again, longer if the failure took many `seconds`."""
        if not self._warned:
            log.warning("tracking: %s; continuing; will retry later", first_line(error))
        self._warned = True
        self._not_before = time.monotonic() + max(PAUSE_SECONDS, SHARE * seconds)

    def _is_down(self, error: Exception) -> bool:
        """Return whether the server cannot be reached or cannot answer now; a local store is never down."""
        from mlflow import get_tracking_uri
        from mlflow.exceptions import MlflowException

        status = error.get_http_status_code() if isinstance(error, MlflowException) else 0
        return str(get_tracking_uri()).startswith("http") and (status >= 500 or status == 429)

    @property
    def _client(self) -> MlflowClient:
        """The client, created when first used, since creating it already opens a database."""
        if self._made is None:
            for name, value in DEFAULTS.items():
                os.environ.setdefault(name, value)
            with extra("mlflow", "mlflow"):
                from mlflow import MlflowClient
            logging.getLogger("urllib3.connectionpool").setLevel(logging.ERROR)  # it warns at every single attempt
            self._made = MlflowClient()
        return self._made

    def _check_run(self, new_run: bool) -> None:
        client, number = self._client, None if new_run else self._number()
        from mlflow.exceptions import MlflowException

        if number is None:
            client.get_experiment_by_name(_experiment_name())
            return
        try:
            is_deleted = client.get_run(number).info.lifecycle_stage != "active"
        except MlflowException as error:
            if error.error_code != "RESOURCE_DOES_NOT_EXIST":
                raise
            is_deleted = True
        if is_deleted:
            raise TrackingError(
                f"{self._folder / files.TRACKING}: names run {number}, which does not exist at "
                "MLFLOW_TRACKING_URI; restore that address, or delete the file to begin a new run"
            )

    def _number(self) -> str | None:
        """Return the run's ID that is stored in the folder."""
        number = self._content(files.TRACKING).get("mlflow")
        return None if number is None else str(number)

    def _run(self) -> str:
        """Return the run's ID; the first call creates the run if there is none, and logs the folder's settings."""
        number = self._number() or self._create()
        if not self._is_begun:
            self._describe(number)
            self._logged = {metric.step for metric in self._client.get_metric_history(number, METRICS[0])}
            self._is_begun = True
        return number

    def _create(self) -> str:
        from mlflow.exceptions import MlflowException

        name = _experiment_name()
        experiment = self._client.get_experiment_by_name(name)
        if experiment is None:
            try:
                self._client.create_experiment(name)
            except MlflowException as error:
                if error.error_code != "RESOURCE_ALREADY_EXISTS":  # else another training has just created it
                    raise
            experiment = self._client.get_experiment_by_name(name)
        run = self._client.create_run(experiment.experiment_id, run_name=experiment_name(self._folder))
        files.write_json(self._folder / files.TRACKING, {"mlflow": str(run.info.run_id)})
        return str(run.info.run_id)

    def _describe(self, number: str) -> None:
        """Log the settings as parameters and the environment as tags.

        MLflow does not allow changing a parameter: a setting that an extended run has changed becomes a tag of the same
        name.
        """
        from mlflow.entities import Param, RunTag

        settings = as_texts(self._content(files.RESOLVED).get("settings", {}))
        known = self._client.get_run(number).data
        parameters = [Param(name, value) for name, value in settings.items() if name not in known.params]
        for start in range(0, len(parameters), 100):  # the limit of a request
            self._client.log_batch(number, params=parameters[start : start + 100])
        changed = {
            name: value
            for name, value in settings.items()
            if known.params.get(name, value) != value or name in known.tags  # changed back
        }
        tags = as_texts(self._content(files.ENVIRONMENT)) | changed
        self._client.log_batch(number, tags=[RunTag(name, value) for name, value in tags.items()])

    def _log_epochs(self, history: Sequence[Epoch]) -> None:
        """Log the epochs that the run does not have yet as metrics, with the epoch's number as the step.

        After a kill, an epoch that was already logged may be trained again: the values logged first are kept.
        """
        from mlflow.entities import Metric

        run, now = self._run(), int(1000 * time.time())
        new = [epoch for epoch in history if epoch.epoch not in self._logged]
        for start in range(0, len(new), 100):  # a request may have 1000 metrics
            sent = new[start : start + 100]
            metrics = [
                Metric(name, value, now, epoch.epoch)
                for epoch in sent
                for name in METRICS
                if math.isfinite(value := getattr(epoch, name))
            ]
            self._client.log_batch(run, metrics=metrics)
            self._logged |= {epoch.epoch for epoch in sent}

    def _end(self, status: str) -> None:
        """Log the epochs, curves and other small files, and close the run."""
        self._log_epochs(self._history())
        run = self._run()
        for name in (files.CONFIG, files.RESOLVED, files.HISTORY, files.CURVES, files.BEST):
            if (self._folder / name).is_file():
                self._client.log_artifact(run, str(self._folder / name))
        self._client.set_terminated(run, status)

    def _log_result(self, result: Mapping[str, Any], folder: Path) -> None:
        """Log the numbers as metrics such as `test.top_1`, and report, plots and tables as files.

        If images other than the experiment's own were evaluated, the folder's name replaces `test`.
        """
        self._log_epochs(self._history())
        run, is_own = self._run(), folder.resolve() == self._folder.resolve()
        prefix = result["data"]["split"] if is_own else re.sub(r"[^\w.-]", "_", folder.name, flags=re.ASCII)
        for name, value in _numbers(result).items():
            self._client.log_metric(run, f"{prefix}.{name}", value)
        for name in (files.RESULT, files.PREDICTIONS, files.REPORT):
            self._client.log_artifact(run, str(folder / name), prefix)
        self._client.log_artifacts(run, str(folder / files.PLOTS), f"{prefix}/{files.PLOTS}")
        # The training was not tracked, or its end was missed.
        is_finished = self._content(files.RESOLVED).get("finished", True)
        if is_finished and self._client.get_run(run).info.status != "FINISHED":
            self._end("FINISHED")

    def _history(self) -> Sequence[Epoch]:
        path = self._folder / files.HISTORY
        return read_history(path) if path.is_file() else ()

    def _content(self, name: str) -> dict[str, Any]:
        return files.read_json(self._folder / name) if (self._folder / name).is_file() else {}


def tracking_of(name: str | None, folder: Path, new_run: bool = False) -> Tracking:
    """Return the tracking of an experiment's folder, connected.

    Args:
        name: `mlflow`, or None for no tracking.
        folder: the experiment's folder, in which the ID of its run is stored.
        new_run: whether the existing run is about to be overwritten.

    Raises:
        ConfigError: there is no such service.
        MissingExtraError, DataError, TrackingError: as for `Tracking.connect`.
    """
    if name is None:
        return Tracking()
    if name != "mlflow":
        raise ConfigError(f"--track: there is no `{name}`; known: mlflow")
    tracking = Tracking(folder)
    tracking.connect(new_run)
    return tracking


def _experiment_name() -> str:
    return os.environ.get("MLFLOW_EXPERIMENT_NAME") or "Default"


def _numbers(result: Mapping[str, Any]) -> dict[str, float]:
    """Return the numbers of a result.json to log as metrics."""
    low, high = result["top_1"]["interval_95"]
    numbers = {
        "top_1": result["top_1"]["value"],
        "top_1_low": low,
        "top_1_high": high,
        "top_5": result["top_5"]["value"],
        "images": result["data"]["images"],
        "unreadable": result["data"]["unreadable"],
        **{name: result[name] for name in ("mean_recall", "log_loss", "images_per_second")},
    }
    return {name: float(value) for name, value in numbers.items() if value is not None}
