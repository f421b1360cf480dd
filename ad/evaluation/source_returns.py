"""The returns of the source agents of a run: a model cannot distill what the histories lack."""

import numpy as np

from ad.data.dataset import training_part
from ad.data.episodes import returns_of
from ad.data.histories import training_folders
from ad.data.store import load_history
from ad.evaluation.scores import estimate
from ad.registry import SOURCES
from ad.runtime.run import Run

TENTH = 0.1  # of a learning curve, at its beginning and at its end
MIN_RISE = 0.05  # of the larger of the two returns; below it, the curve counts as flat
NEAR_OPTIMAL = 0.9  # of the optimal return at the beginning, from which no rise is expected
MIN_TASKS = 5  # from which the interval of the rise must lie above 0


def source_warning(run: Run) -> str:
    """Return what to warn of if the return of the source does not rise, otherwise "".

    A source with privileged information need not learn, and has no warning; nor has a run without
    histories, or one whose tasks change, where learning begins again and again.
    """
    source = SOURCES.load(run.config.source.algorithm)
    if not len(run.history_tasks) or source.privileged_info != "nothing" or run.config.env.change:
        return ""
    tasks = run.split.train_tasks
    folders = training_folders(run.config, tasks)
    if folders is None:
        return ""
    ends = np.array([_ends(load_history(folder, ()).curve["return"]) for folder in folders])
    optimal = run.world.optimal_return(tasks, run.config.env.episode_length)
    if not is_flat(ends, None if optimal is None else float(np.nanmean(optimal))):
        return ""
    first, last = np.nanmean(ends, axis=0)
    return (
        f"the return of the source {run.config.source.algorithm} does not rise: {first:.3g} in the "
        f"first tenth of its histories, {last:.3g} in the last, as the mean over {len(ends)} train "
        "tasks. A model learns no more than its histories contain: change source.env_steps or "
        "source.settings"
    )


def data_returns(run: Run) -> np.ndarray | None:
    """Return the returns of all whole episodes that `run` trains on, float64 [M].

    None if a train task has no history, or if there is no whole episode. Raises CorruptError.
    """
    folders = training_folders(run.config, run.split.train_tasks)
    if folders is None:
        return None
    actors, steps = training_part(run.config)
    returns = []
    for folder in folders:
        arrays = load_history(folder, ("terminated", "truncated", "reward")).learned
        returns.append(returns_of({name: a[actors, :steps] for name, a in arrays.items()}))
    whole = np.concatenate(returns)
    return whole if len(whole) else None


def is_flat(ends: np.ndarray, optimal: float | None = None) -> bool:
    """Return whether returns do not rise from the beginning to the end of learning curves.

    ends: float [K, 2], the return of K tasks at both ends, NaN for unknown. optimal: the mean
    optimal return, if it is known: curves that begin near it are not flat, nor are unknown ones.
    """
    known = ends[np.isfinite(ends).all(1)]
    if not len(known):
        return False
    first, last = known.mean(0)
    if optimal is not None and first >= optimal - (1 - NEAR_OPTIMAL) * abs(optimal):
        return False
    rise = estimate((known[:, 1] - known[:, 0]).tolist())
    is_certain = rise.n < MIN_TASKS or rise.low is None or rise.low > 0
    return not (is_certain and last - first > MIN_RISE * max(abs(first), abs(last)))


def _ends(returns: np.ndarray) -> tuple[float, float]:
    """Return the means of the first and of the last tenth of a learning curve, NaN for unknown."""
    known = returns[np.isfinite(returns)]
    count = max(1, round(TENTH * len(known)))
    return (known[:count].mean(), known[-count:].mean()) if len(known) > 1 else (np.nan, np.nan)
