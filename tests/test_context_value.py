"""Context values: the labels of a hand-made history, and what a rollout reads back."""

import numpy as np
import pytest
import torch
from policies import random_model

from ad.data.sampler import TaskHistory, WindowSampler
from ad.data.spec import Spec
from ad.methods import context_value
from envs.oracle import TaskOracle
from envs.spaces import Discrete

# Two actors of three episodes; the last transition of the first actor belongs to none.
REWARD = [[1, 0, 2, 0, 3, 0, 0, 9], [0, 0, 0, 1, 0, 5, 1, 1]]
DONE = [[0, 0, 1, 0, 1, 0, 1, 0], [0, 1, 0, 0, 0, 1, 0, 1]]
# By hand: episodes with the returns 3 and 0 end in the first half of the histories, those with 3,
# 0, 6 and 2 in the second one.
EARLY, LATE = 1.5, 2.75
VALUES = [*[EARLY] * 3, *[LATE] * 4, np.nan, *[EARLY] * 2, *[LATE] * 6]


@pytest.mark.parametrize("stride", [1, 2])
def test_the_value_of_a_transition_is_the_mean_return_in_its_stage(stride, monkeypatch):
    monkeypatch.setattr(context_value, "STAGES", 2)
    arrays = {"observation": np.arange(16).reshape(2, 8), "reward": np.array(REWARD, np.float32)}
    arrays |= {"terminated": np.array(DONE, bool), "truncated": np.zeros((2, 8), bool)}
    history = TaskHistory(arrays, np.zeros(1, int), TaskOracle())
    spec, derived = (
        Spec({"": Discrete(16, (16,))}, 5, (), (0, 9), 6),
        context_value.ContextValue.derived,
    )
    fields = ("observation", "reward")
    windows = WindowSampler([history], spec, fields, 3, stride, derived=derived)
    batch = windows.sample(np.random.default_rng(0), 300)
    valid, number = batch["valid"], batch["observation"]
    np.testing.assert_array_equal(batch["reward"][valid], np.array(VALUES)[number[valid]])
    assert set(number[valid]) == {*range(16)} - {7}
    assert np.isnan(batch["reward"][:, 0][~valid[:, 0]]).all()  # before the first transition


def test_a_rollout_reads_the_running_maximum_of_its_predictions(monkeypatch):
    method, model = random_model("context_value")
    predicted = iter([[0.2, -0.5], [0.1, 0.3], [0.6, 0.25]])
    monkeypatch.setattr(model, "values", lambda hidden: torch.tensor(next(predicted)))
    policy = method.policy(model, 2, 8, method.PolicySettings())
    here, no, reward = torch.tensor([4, 5]), torch.zeros(2) > 0, torch.tensor([1.0, 0.0])
    for time, look in enumerate((policy.act, policy.enter, policy.act)):
        look(here, torch.full((2,), time % 2))
        # An episode of the second environment ends after the second decision.
        policy.observe(here, reward, torch.tensor([False, time == 1]), no, here)
    read = policy.window()["reward"][:, 1:]
    torch.testing.assert_close(read, torch.tensor([[0.2, 0.2, 0.6], [0.0, 0.3, 0.3]]))
    policy.select(torch.tensor([1, 1, 0]))
    assert policy.largest.tolist() == pytest.approx([0.3, 0.3, 0.6])


def test_what_is_read_back_changes_the_next_decision():
    method, model = random_model("context_value")
    logits = []
    for largest in (0.0, 1.0):
        policy = method.policy(model, 1, 8, method.PolicySettings())
        policy.act(torch.tensor([4]), torch.tensor([0]))
        policy.largest[:] = largest
        no = torch.zeros(1) > 0
        policy.observe(torch.tensor([1]), torch.tensor([0.0]), no, no, torch.tensor([3]))
        logits.append(policy.act(torch.tensor([3]), torch.tensor([1])))
    assert (logits[0] - logits[1]).abs().max() > 1e-3
