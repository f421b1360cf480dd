"""Edits of a history: what a policy reads after them, and what heads built by hand make of it."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from hand_made import block, copies, hand_made, rewarded, same_cell
from test_contexts import READERS, untrained

from ad.interpret.analysis import Subject
from ad.interpret.edits import (
    EditedHistory,
    Reader,
    Transition,
    change,
    explain,
    remove,
    reset_episode,
)
from ad.methods import build_method
from ad.rollout.tasks import policy_of
from ad.runtime.run import Run

CELLS = [0, 1, 2, 5, 4, 3, 6]
ACTIONS = [0, 1, 3, 2, 4, 0]


def cell(number: int) -> dict[str, np.ndarray]:
    return {"": np.array(number)}


@pytest.fixture
def history() -> EditedHistory:
    """Six transitions, of which the third had a reward and the fourth was truncated."""
    steps = tuple(
        Transition(
            *(cell(CELLS[t]), ACTIONS[t], float(t == 2), cell(CELLS[t + 1])), truncated=t == 3
        )
        for t in range(6)
    )
    return EditedHistory(steps, cell(CELLS[6]))


@pytest.fixture
def subject(spec, smoke, tmp_path):
    """One head goes back to what was rewarded, with the logit 2; the other looks for its cell."""
    model = hand_made(spec)
    rewarded(model, 0, 0)
    copies(model, 0, 0, block("action")[:5], block("out"), gain=2.0)
    same_cell(model, 0, 1)
    config = smoke(tmp_path, "--data.context_length", "20")
    return Subject(Run(config), build_method(config.method), model)


def one_hot(action: int) -> np.ndarray:
    return 2.0 * np.eye(5)[action]


def outputs(subject, history) -> np.ndarray:
    reader = Reader(subject.policy, history)
    np.testing.assert_allclose(
        reader.logits[0],
        explain(subject.model, reader.contexts())["outputs"].values,
        atol=1e-5,
    )
    return reader.logits[0].numpy()


def attention(subject, history):
    return explain(subject.model, Reader(subject.policy, history).contexts())["attention"]


def test_a_head_that_repeats_what_was_rewarded_follows_a_changed_action(subject, history):
    np.testing.assert_allclose(outputs(subject, history), one_hot(3), atol=1e-4)
    changed = change(history, 2, action=1)
    np.testing.assert_allclose(outputs(subject, changed), one_hot(1), atol=1e-4)
    before, after = attention(subject, history), attention(subject, changed)
    np.testing.assert_allclose(after.values, before.values, atol=1e-5)


def test_an_observation_is_changed_in_both_transitions_that_it_joins(history):
    changed = change(history, 1, observation=cell(8))
    assert changed.transitions[0].next_observation == changed.transitions[1].observation == cell(8)
    changed = change(history, 1, next_observation=cell(7))
    assert changed.transitions[2].observation == cell(7) == changed.transitions[1].next_observation
    changed = change(history, 5, next_observation=cell(7))
    assert changed.observation == cell(7)
    changed = change(history, 3, next_observation=cell(7))  # the last of its episode
    assert changed.transitions[4] == history.transitions[4]
    assert change(history, 4, observation=cell(7)).transitions[3] == history.transitions[3]


def test_what_is_left_after_a_removal_is_numbered_as_if_it_had_always_been_so(history):
    assert history.episode.tolist() == [0, 0, 0, 0, 1, 1, 1]
    assert history.time.tolist() == [0, 1, 2, 3, 0, 1, 2]
    shorter = remove(history, [1, 3])
    assert shorter.episode.tolist() == [0, 0, 1, 1, 1] and shorter.time.tolist() == [0, 1, 0, 1, 2]
    assert shorter.transitions[1] == replace(history.transitions[2], truncated=True)
    assert reset_episode(history, 0).transitions == history.transitions[4:]
    emptied = reset_episode(history, 1)
    assert emptied.time[-1] == 0 and emptied.episode[-1] == 1
    assert emptied.observation == history.observation


@pytest.mark.parametrize("words", READERS.values(), ids=READERS)
def test_a_history_is_read_as_an_environment_is(collected, history, words):
    run, method, model = untrained(collected("edits", "--data.context_length", "4", *words))
    new_policy = policy_of(run.config, method, model)
    history = change(history, 4, reward=1.0)
    within = method.within_episodes
    reader = Reader(new_policy(1), EditedHistory((), history.transitions[0].observation), within)
    following = [step.observation for step in history.transitions[1:]] + [history.observation]
    for step, observation in zip(history.transitions, following, strict=True):
        reader.add(step, observation)
    at_once = Reader(new_policy(1), history, within)
    assert at_once.history == reader.history
    torch.testing.assert_close(at_once.logits, reader.logits)
    torch.testing.assert_close(at_once.inner.window(), reader.inner.window(), equal_nan=True)
