"""The memory `retrieval`: its windows are the same in training and in rollouts."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from ad.config.schema import ModelConfig
from ad.data.episodes import best_first
from ad.data.sampler import TaskHistory, WindowSampler
from ad.methods.base import Method
from ad.methods.context_policy import ContextPolicy
from ad.methods.contexts import SlidingWindow
from ad.methods.losses import cross_entropy
from ad.models.sequence_model import SequenceModel
from envs.oracle import TaskOracle

CONTEXT = 16  # a full window keeps 4 retrieved and 4 newest decisions: those from 12, 20, 28, ...
LENGTHS = {  # of episodes
    "which end where windows are cut": [2] * 30,
    "one across a cut": [2, 4, 4, 4, 4, 4],
    "the first too long for the first cut": [13, *[4] * 11, 3],
}
CONFIG = ModelConfig(width=16, layers=2, heads=2, feed_forward=32, memory="retrieval")


def test_of_equal_episodes_the_newest_are_retrieved_and_of_the_last_its_end():
    returns = np.array([[1, 1, 0, 0, 2, 2, 1, 1, 0], [0, 0, 0, 0, 0, 0, 0, 3, -np.inf]])
    assert best_first(returns, 5).tolist() == [[1, 4, 5, 6, 7], [3, 4, 5, 6, 7]]


@pytest.fixture(params=LENGTHS.values(), ids=LENGTHS)
def history(request, spec):
    """Two actors in one task: every transition tells its time, and pays 0 or 1."""
    time = np.concatenate([np.arange(length) for length in request.param])
    rng, shape = np.random.default_rng(1), (2, len(time))
    ends = np.r_[time[1:] == 0, True]
    observation = rng.integers(9, size=(2, len(time) + 1))
    reward = rng.integers(2, size=shape).astype(np.float32)
    reward[:, 10:14] = 1
    return {
        "observation": observation[:, :-1],
        "next_observation": observation[:, 1:],
        "action": rng.integers(5, size=shape),
        "reward": reward,
        "terminated": np.zeros(shape, bool),
        "truncated": np.array([ends, ends]),
        "time": np.array([time, time]),
    }


def test_a_window_of_a_rollout_is_that_of_the_training_set(spec, history):
    torch.manual_seed(0)
    spec = replace(spec, episode_length=13)  # that of the longest episode
    model = SequenceModel(spec, CONFIG).eval()
    task = TaskHistory(history, np.zeros(1, int), TaskOracle())
    sampler = WindowSampler([task], spec, Method.fields, CONTEXT, 1, retrieved=4)
    policy = ContextPolicy(model, SlidingWindow(model, 2, CONTEXT))
    retrieved = set()
    for step in range(history["time"].shape[1]):
        now = {name: torch.from_numpy(values[:, step]) for name, values in history.items()}
        logits = policy.act(now["observation"], now["time"])
        window = policy.window()
        torch.testing.assert_close(logits, model(window)[:, -1])
        ends = now["terminated"], now["truncated"]
        policy.observe(now["action"], now["reward"], *ends, now["next_observation"])
        played = policy.window()
        length = played["step"].shape[1]
        offset = step - (length - 2)  # of a window of transitions in a row
        expected = sampler.windows(np.arange(2), np.full(2, offset))
        for name in (*Method.fields, "step", "valid"):
            np.testing.assert_array_equal(played[name], expected[name][:, :length], err_msg=name)
        kept = ~expected["valid"][:, 0] & (offset > 0)  # a rollout decides nothing there
        assert (expected["retrieved"][:, 1:5] == kept[:, None]).all()
        assert not expected["retrieved"][:, 5:].any()
        retrieved.update(map(tuple, played["step"][:, 1:5].tolist()))
    assert len(retrieved) > history["time"].shape[1] // 15  # other episodes over time
    assert not retrieved.isdisjoint({(0, 1, 2, 3)})
    batch = {name: torch.from_numpy(values) for name, values in expected.items()}
    logits = torch.randn(2, spec.num_actions, CONTEXT)
    loss = cross_entropy(logits, batch, 0.0)
    batch["action"][:, 1:5] += 1
    assert kept.all() and cross_entropy(logits, batch, 0.0) == loss
