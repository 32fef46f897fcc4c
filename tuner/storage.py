"""Storage: the Optuna study behind a study, SQLite in its folder unless another URL is given."""

import warnings

import optuna
from sqlalchemy.exc import SQLAlchemyError

from tuner.config.plan import Plan
from tuner.errors import BoxUnusable, ConfigError

METRIC = "goodput, req/s per GPU"


def open_study(plan: Plan, *, resume: bool) -> optuna.Study:
    """The Optuna study of `plan`: a new one, or the one to resume, made if it was not yet.

    Raises BoxUnusable if the storage cannot be reached, ConfigError if it holds a study of this name already.
    """
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    url = plan.storage or f"sqlite:///{plan.out / 'study.db'}"
    try:
        study = optuna.create_study(
            storage=url,
            study_name=plan.study,
            direction="maximize",
            pruner=optuna.pruners.NopPruner(),
            load_if_exists=resume,
        )
    except optuna.exceptions.DuplicatedStudyError as error:
        raise ConfigError(
            f"--storage {url}: a study named {plan.study} is there; --resume it, or name --out anew"
        ) from error
    except (SQLAlchemyError, ImportError) as error:
        reason = str(error).splitlines()[0]
        raise BoxUnusable(f"--storage {url}: cannot be opened: {reason}") from error
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        study.set_metric_names([METRIC])
    return study
