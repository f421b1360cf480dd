"""The returns of the training data: what there is to imitate, and which can be asked for."""

import numpy as np

from ad.data.dataset import training_part
from ad.data.episodes import returns_of
from ad.data.histories import training_folders
from ad.data.store import load_history
from ad.runtime.run import Run


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


def describe_returns(returns: np.ndarray) -> str:
    """Return a sentence about `returns` [M]."""
    low, median, high = np.quantile(returns, [0.05, 0.5, 0.95])
    return (
        f"{len(returns):,} episodes: mean return {returns.mean():.3g}, median {median:.3g}, "
        f"90 % of them from {low:.3g} to {high:.3g}, the best {returns.max():.3g}."
    )
