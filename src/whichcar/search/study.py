"""The study, with Optuna: storage of trials, sampling of values, pruning."""

from __future__ import annotations

import contextlib
import json
import sqlite3
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from whichcar.errors import MissingExtraError, SweepError, WhichcarError, extra
from whichcar.search.baseline import start_values
from whichcar.search.lease import LEASE, Lease
from whichcar.search.space import SweepSpec, is_active
from whichcar.search.sweep_file import Parameter, Pruner, Sampler
from whichcar.text import first_line, without_password
from whichcar.training.run.folder import first_difference

if TYPE_CHECKING:
    import optuna
    from optuna.storages import BaseStorage
    from optuna.trial import FrozenTrial

IDENTITY = "whichcar"
SURPLUS = "surplus"  # a trial started beyond the budget by two machines at once; it does not count
_POSTGRESQL = "postgresql+psycopg"  # SQLAlchemy's name for it
_DATABASES = ("postgresql", "postgres", _POSTGRESQL)


def open_study(spec: SweepSpec, storage: str | None = None) -> optuna.Study:
    """Create or resume the study of a sweep.

    Args:
        storage: `FILE.db` (SQLite), `FILE.journal`, or `postgresql://user@host/name`; None for `study.db` in the
            sweep's folder.

    Raises:
        SweepError: the storage is none of these, or holds trials with other settings under this name.
        MissingExtraError: Optuna is not installed.
    """
    with extra("optuna", "sweep"):
        import optuna

    if storage:
        _check_storage(storage)
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    where = storage or str(spec.folder / "study.db")
    study = optuna.create_study(
        storage=_storage(where),
        study_name=spec.name,
        direction=spec.sweep.name_of_direction,
        load_if_exists=True,
        sampler=make_sampler(spec.sweep.sampler, 0),
        pruner=make_pruner(spec.sweep.pruner, spec.epochs),
    )
    known, now = study.user_attrs.get(IDENTITY), json.loads(json.dumps(spec.identity()))
    if known is None:
        study.set_user_attr(IDENTITY, now)
    elif known != now:
        close_study(study)
        raise SweepError(
            f"{spec.path}: {without_password(where)} holds trials of other settings ({first_difference(known, now)}); "
            f"give the sweep another name{'' if storage else f', or remove {spec.folder}'} to start over"
        )
    return study


def close_study(study: optuna.Study) -> None:
    """Close the connections to a database."""
    from optuna.storages import RDBStorage

    backend = getattr(study._storage, "_backend", study._storage)
    if isinstance(backend, RDBStorage):
        backend.remove_session()
        backend.engine.dispose()


@contextlib.contextmanager
def storage_errors(where: str) -> Iterator[None]:
    """Convert the errors of Optuna and the database to one-line errors.

    Args:
        where: the storage.

    Raises:
        SweepError: the storage cannot be reached or used.
        MissingExtraError: the database's driver is not installed.
    """
    try:
        yield
    except WhichcarError:
        raise
    except Exception as error:
        if isinstance(error, ImportError) and "DB access module" in str(error):
            raise MissingExtraError("the driver of postgresql", "postgresql") from error
        if type(error).__module__.partition(".")[0] not in ("optuna", "sqlalchemy", "psycopg", "sqlite3", "json"):
            raise
        reason = first_line(error.__cause__ or error)
        raise SweepError(
            f"{without_password(where)}: cannot be used as a study ({reason}); the same command resumes once it can be "
            "reached"
        ) from error


def _check_storage(storage: str) -> None:
    is_address = "://" in storage
    if not (_is_database(storage) if is_address else Path(storage).suffix in (".db", ".journal")):
        raise SweepError(
            f"--storage {without_password(storage)}: must be FILE.db, FILE.journal (on a shared disk) or "
            "postgresql://user@host/name"
        )
    if not is_address and not Path(storage).parent.is_dir():
        raise SweepError(f"--storage {storage}: no such folder: {Path(storage).parent}; create it, or fix the path")


def _is_database(address: str) -> bool:
    from sqlalchemy.engine import make_url
    from sqlalchemy.exc import ArgumentError

    try:
        return make_url(address).drivername in _DATABASES
    except (ArgumentError, ValueError):  # not an address, or its port is not a number
        return False


def _storage(where: str) -> BaseStorage:
    from optuna.storages import JournalStorage, RDBStorage
    from optuna.storages.journal import JournalFileBackend, JournalFileSymlinkLock
    from sqlalchemy.pool import NullPool

    if "://" not in where and Path(where).suffix == ".journal":
        Path(where).parent.mkdir(parents=True, exist_ok=True)
        lock = JournalFileSymlinkLock(where)
        # The link's target is looked up from its own folder; if it is not found, the lock of a killed process stays.
        lock._lock_target_file = Path(where).name
        _truncate_journal(Path(where), lock)
        return JournalStorage(JournalFileBackend(where, lock))
    if "://" not in where:
        Path(where).parent.mkdir(parents=True, exist_ok=True)
        path = Path(where).resolve()
        # A database URL would end at a `?` in the path. The file is opened only when it is needed.
        options = {"creator": lambda: sqlite3.connect(path, timeout=60), "poolclass": NullPool}
        return RDBStorage("sqlite://", engine_kwargs=options)
    return RDBStorage(f"{_POSTGRESQL}://{where.split('://', 1)[1]}", engine_kwargs={"pool_pre_ping": True})


def _truncate_journal(path: Path, lock: Any) -> None:  # noqa: ANN401
    """Remove an incomplete last line left by a machine that crashed, since it would corrupt the next line."""
    from optuna.storages.journal._file import get_lock_file

    if not path.exists():
        return
    with get_lock_file(lock), path.open("rb+") as file:
        file.seek(max(0, path.stat().st_size - 2**20))
        end = file.read()
        if end and not end.endswith(b"\n"):
            file.truncate(path.stat().st_size - len(end) + end.rfind(b"\n") + 1)


def make_sampler(settings: Sampler, number: int) -> optuna.samplers.BaseSampler:
    """Return the sampler for one trial, seeded by seed and number, so that a new process repeats no values."""
    import optuna

    seed = (settings.seed * 1_000_003 + number) % 2**32
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        if settings.name == "random":
            return optuna.samplers.RandomSampler(seed=seed)
        if settings.name == "grid":

            class Grid(optuna.samplers.BruteForceSampler):
                def after_trial(self, *_: Any) -> None:  # noqa: ANN401
                    """Do not tell the study to stop: the sweep itself knows how many combinations there are."""

            return Grid(seed=seed)
        return optuna.samplers.TPESampler(
            n_startup_trials=settings.startup_trials, multivariate=True, group=True, seed=seed
        )


def make_pruner(settings: Pruner, epochs: int) -> optuna.pruners.BasePruner:
    """Return the pruner; its steps are epochs, counted from 1."""
    import optuna

    first, reduction = settings.min_epochs, settings.reduction
    if settings.name == "median":
        return optuna.pruners.MedianPruner(settings.startup_trials, n_warmup_steps=first)
    if settings.name == "successive_halving":
        return optuna.pruners.SuccessiveHalvingPruner(first, reduction)
    if settings.name == "hyperband":
        return optuna.pruners.HyperbandPruner(first, max(first, epochs), reduction)
    return optuna.pruners.NopPruner()


def draw(trial: optuna.Trial, spec: SweepSpec) -> dict[str, Any]:
    """Return the trial's values, sampling those it does not have yet."""
    values: dict[str, Any] = {}
    for name, parameter in spec.space.items():
        if is_active(parameter, values):
            values[name] = _drawn(trial, name, parameter)
    return values


def _drawn(trial: optuna.Trial, name: str, parameter: Parameter) -> Any:  # noqa: ANN401
    if parameter.choices is not None:
        return trial.suggest_categorical(name, parameter.labels)
    low, high, step = parameter.low, parameter.high, parameter.step
    assert low is not None and high is not None  # noqa: S101  (checked by Parameter)
    if isinstance(low, int) and isinstance(high, int):
        return trial.suggest_int(name, low, high, log=parameter.log, step=int(step or 1))
    return trial.suggest_float(name, low, high, log=parameter.log, step=step)


def new_trial(study: optuna.Study, spec: SweepSpec, lease: Lease) -> optuna.Trial:
    """Add a trial that carries the lease from the start, and sample its values."""
    import optuna

    sampler, first = spec.sweep.sampler, not study.get_trials(deepcopy=False)
    fixed = start_values(spec) if first and sampler.base_first and sampler.name != "grid" else {}
    blank = optuna.trial.create_trial(
        state=optuna.trial.TrialState.RUNNING,
        user_attrs={LEASE: lease.record()},
        system_attrs={"fixed_params": fixed},  # as Optuna's enqueue_trial does
    )
    before = {trial.number for trial in held_by(study, lease)}
    study.add_trial(blank)
    added = next(trial for trial in held_by(study, lease) if trial.number not in before)
    return open_trial(study, spec, added)


def open_trial(study: optuna.Study, spec: SweepSpec, trial: FrozenTrial) -> optuna.Trial:
    """Return a stored trial as one that can sample and report."""
    import optuna

    study.sampler = make_sampler(spec.sweep.sampler, trial.number)
    opened = optuna.Trial(study, trial._trial_id)
    draw(opened, spec)
    return opened


def latest(trial: optuna.Trial) -> FrozenTrial:
    """Return the current state of a trial in the study."""
    return trial.study.get_trials(deepcopy=False)[trial.number]


def held_by(study: optuna.Study, lease: Lease) -> list[FrozenTrial]:
    """Return the running trials that carry this lease."""
    return [trial for trial in running(study) if lease.holds(trial.user_attrs.get(LEASE))]


def running(study: optuna.Study) -> list[FrozenTrial]:
    """Return the trials that have not ended."""
    from optuna.trial import TrialState

    return study.get_trials(deepcopy=False, states=(TrialState.RUNNING,))
