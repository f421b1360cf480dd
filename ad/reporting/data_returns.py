"""The returns of the training data: what there is to imitate, and which can be asked for."""

import numpy as np

from ad.data.dataset import training_part
from ad.data.episodes import episodes
from ad.data.histories import Histories
from ad.data.manifest import MANIFEST
from ad.data.store import load_history
from ad.runtime.run import Run


def data_returns(run: Run) -> np.ndarray | None:
    """Return the returns of all whole episodes that `run` trains on, float64 [M].

    None if a train task has no history, or if there is no whole episode. Raises CorruptError.
    """
    histories, (actors, steps) = Histories(run.config), training_part(run.config)
    folders = [histories.folder(task) for task in run.split.train_tasks]
    if not all((folder / MANIFEST).exists() for folder in folders):
        return None
    returns = []
    for folder in folders:
        arrays = load_history(folder, ("terminated", "truncated", "reward")).learned
        done, reward = arrays["terminated"] | arrays["truncated"], arrays["reward"]
        returns.append(episodes(done[actors, :steps], reward[actors, :steps]).returns)
    found = np.concatenate(returns)
    return found if len(found) else None


def describe_returns(returns: np.ndarray) -> str:
    """Return a sentence about `returns` [M]."""
    low, median, high = np.quantile(returns, [0.05, 0.5, 0.95])
    return (
        f"{len(returns):,} episodes: mean return {returns.mean():.3g}, median {median:.3g}, "
        f"90 % of them from {low:.3g} to {high:.3g}, the best {returns.max():.3g}."
    )
