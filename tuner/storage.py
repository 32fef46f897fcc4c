"""Storage: the Optuna study behind a study, SQLite in its folder unless another URL is given."""

import sqlite3
import warnings
from collections.abc import Collection, Iterator
from contextlib import contextmanager, suppress

import optuna
from sqlalchemy.exc import SQLAlchemyError

from tuner.config.plan import Plan
from tuner.errors import BoxUnusable, ConfigError

METRIC = "goodput, req/s per GPU"


def open_study(plan: Plan) -> optuna.Study:
    """The Optuna study of `plan`, made if it is not there. Raises BoxUnusable if the storage cannot be reached."""
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    with reached(plan):
        study = optuna.create_study(
            storage=_storage(plan),
            study_name=plan.study,
            direction="maximize",
            pruner=optuna.pruners.NopPruner(),
            load_if_exists=True,
        )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        study.set_metric_names([METRIC])
    return study


def refuse_taken_name(plan: Plan) -> None:
    """Raise ConfigError if the storage has a study of this name already, BoxUnusable if it cannot be reached."""
    if plan.storage is None:
        return
    with reached(plan):
        taken = plan.study in optuna.get_all_study_names(plan.storage)
    if taken:
        raise ConfigError(f"--storage {plan.storage}: it has a study named {plan.study}; name --out anew")


def refuse_lost_trials(plan: Plan, numbers: Collection[int]) -> None:
    """Raise ConfigError if the folder has trials that the storage does not know: they would be measured over."""
    if not numbers:
        return
    known = 0
    if plan.storage or (plan.out / "study.db").exists():
        with reached(plan), suppress(KeyError):
            known = len(optuna.load_study(study_name=plan.study, storage=_url(plan)).get_trials(deepcopy=False))
    if max(numbers) >= known:
        advice = "give the --storage the study was started with" if plan.storage else "put its study.db back"
        raise ConfigError(
            f"{plan.out}: it has trials up to t{max(numbers)}, but {_url(plan)} knows {known}; "
            f"{advice}, or give another --out"
        )


@contextmanager
def reached(plan: Plan) -> Iterator[None]:
    """Raises BoxUnusable where the storage cannot be read or written in the block."""
    try:
        yield
    except (SQLAlchemyError, ImportError, optuna.exceptions.StorageInternalError) as error:
        reason = str(error.__cause__ or error).splitlines()[0]
        raise BoxUnusable(f"--storage {_url(plan)}: cannot be used: {reason}") from error


def _storage(plan: Plan) -> str | optuna.storages.RDBStorage:
    """In virtual time a study is over in seconds: it does not wait, commit by commit, for the disk."""
    if plan.storage or plan.box.simulation != "virtual":
        return _url(plan)

    def connect() -> sqlite3.Connection:
        connection = sqlite3.connect(plan.out / "study.db", check_same_thread=False)
        connection.execute("PRAGMA synchronous = OFF")
        return connection

    return optuna.storages.RDBStorage(_url(plan), engine_kwargs={"creator": connect})


def _url(plan: Plan) -> str:
    return plan.storage or f"sqlite:///{plan.out / 'study.db'}"
