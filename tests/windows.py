"""Windows of a fixture as contexts of two tasks."""

import numpy as np
import torch

from ad.interpret.analysis import Subject
from ad.interpret.changes import Queries, make_queries
from ad.interpret.contexts import Contexts, number_observations


def labeled(window: dict[str, torch.Tensor], spec, episode=None) -> Contexts:
    """The contexts of a window, all decided in it; without episodes they are one."""
    arrays = {name: values.numpy() for name, values in window.items()}
    valid = arrays["valid"]
    episode = np.where(valid, 0 if episode is None else episode, -1)
    decided = valid.copy()
    decided[:, 0] = False
    task = np.arange(len(valid)) % 2
    cell = number_observations(arrays, spec)
    return Contexts(window, task, ["0", "1"], episode, decided, cell, int(episode.max()) + 1)


def subject_of(model, contexts: Contexts, method=None) -> Subject:
    """A model without a run whose contexts are given."""
    subject = Subject(None, method, model)
    subject.__dict__["contexts"] = contexts  # which is computed once
    return subject


def rewarded_queries(spec, random_window) -> Queries:
    """Twelve windows of ten decisions with rewards, in episodes of three, the last one unfinished;
    the next-to-last transition is never rewarded."""
    window = random_window(12, 10, 0)
    window["reward"][:, 9] = 0.0
    window["reward"][:, 4] = 1.0
    window["time"][:, 1:] = torch.arange(10) % 3
    contexts = labeled(window, spec, np.r_[-1, np.arange(10) // 3])
    return make_queries(contexts, 12)
