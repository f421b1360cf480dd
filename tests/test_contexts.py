"""Contexts: the windows that a policy read, each decision once, with labels that tell the truth."""

import numpy as np
import pytest
import torch

from ad.data.spec import make_spec
from ad.errors import ConfigError
from ad.interpret import contexts as contexts_module
from ad.interpret.contexts import environments, rollout_contexts
from ad.methods import build_method, build_model
from ad.registry import MEMORIES
from ad.runtime.run import Run

GREEDY = ["--evaluation.action", "greedy", "--data.context_length", "7"]
METHODS = {
    "algorithm distillation": [],
    "three tokens": ["--model.tokenizer", "separate", "--model.position", "history"],
    "decision transformer": ["--method.name", "decision_transformer"],
    "clone": ["--method.name", "behavior_cloning", "--model.position", "window"],
    "context value": ["--method.name", "context_value"],
    "in-context Q": ["--method.name", "in_context_q"],
    "decision-pretrained": ["--method.name", "dpt"],
}
READERS = METHODS | {
    **{
        f"{name}, {memory}": [*words, "--model.memory", memory]
        for name, words in METHODS.items()
        for memory in MEMORIES
        if memory not in ("transformer", "xl")  # without a window, or that reaches beyond it
        and (
            memory != "retrieval" or name not in ("decision transformer", "clone", "context value")
        )
    },
    **{
        f"{memory} of segments": ["--training.segments", "4", "--model.memory", memory]
        for memory in MEMORIES
        if MEMORIES.load(memory).carries
    },
    "asked across episodes": [
        *("--method.name", "decision_transformer"),
        *("--method.settings", "{across_episodes: true}"),
    ],
    "past episodes": ["--method.name", "dpt", "--evaluation.policy", "{context_update: episode}"],
}


def untrained(config):
    """The run of `config`, its method, and a random model whose logits differ."""
    run, method = Run(config), build_method(config.method)
    torch.manual_seed(3)
    spec = make_spec(run.world, config.env.episode_length, np.array([0.0, 1.0]), [[0.0, 1.0]])
    model = build_model(method, spec, config).eval().requires_grad_(False)
    torch.nn.init.normal_(model.head.weight)
    return run, method, model


def rollout(run, method, model, tasks):
    """The contexts of four episodes on `tasks`."""
    played = environments(run.config, method, tasks, 4)
    return rollout_contexts(run.config, method, model, played)


@pytest.mark.parametrize("words", READERS.values(), ids=READERS)
def test_every_decision_is_in_one_window_that_gives_its_action(collected, words):
    run, method, model = untrained(collected("contexts", *GREEDY, *words))
    contexts = rollout(run, method, model, run.split.held_out_tasks[:3])
    chosen = model(contexts.window).argmax(-1).numpy()
    actions, decided = contexts.window["action"].numpy()[:, 1:], contexts.decided[:, 1:]
    assert (chosen == actions)[decided].all()
    ends = np.bincount(contexts.task, (contexts.decided & (contexts.time == 0)).sum(1))
    assert ends.tolist() == [4, 4, 4]  # episodes
    assert not contexts.decided[~contexts.valid].any()


def test_the_labels_of_a_window_are_those_counted_entry_by_entry(collected):
    words = ["--data.context_length", "9", "--evaluation.temperature", "100"]
    run, method, model = untrained(collected("contexts", *words))
    contexts = rollout(run, method, model, run.split.held_out_tasks)
    observation, valid = contexts.window["observation"].numpy(), contexts.valid
    visited, found, reward = contexts.visited, contexts.reward_seen, contexts.reward
    for row, t in zip(*np.nonzero(valid), strict=True):
        before = [s for s in range(t) if valid[row, s]]
        assert visited[row, t] == (observation[row, t] in observation[row, before])
        assert found[row, t] == any(reward[row, s] > 0 for s in before)
    arrived = at_goal(run, contexts)
    assert (arrived == (reward > 0))[valid].all() and arrived.any()


def at_goal(run, contexts) -> np.ndarray:
    """Whether each transition led to the goal of its window's task, bool [B, T + 1]."""
    goals = [[int(part) for part in name.split("-")] for name in contexts.tasks]
    cells = np.ravel_multi_index(np.array(goals).T, run.world.observation_factors)
    return contexts.window["next_observation"].numpy() == cells[contexts.task][:, None]


def test_without_several_tasks_the_groups_are_episodes_each_asked_for_its_return(
    collected, monkeypatch
):
    monkeypatch.setattr(contexts_module, "ROLLOUTS", 3)
    words = [*METHODS["decision transformer"], "--data.context_length", "1"]
    run, method, model = untrained(collected("contexts", *words))
    played = environments(run.config, method, run.split.held_out_tasks[:1], 4, (0.0, 1.0))
    contexts = rollout_contexts(run.config, method, model, played)
    assert contexts.unit == "episode" and len(contexts.groups) == 2 * 3 * 2 == 12
    assert contexts.groups[3] == "seed 1, 0 asked, episode 2"
    assert sorted(set(contexts.group)) == [*range(12)]
    first = contexts.decided & (contexts.time == 0)  # no reward is behind these decisions
    begins = contexts.window["return_to_go"].numpy()[first]
    np.testing.assert_array_equal(begins, contexts.asked[first.any(1)])
    assert (contexts.asked == contexts.group // 6).all()
    totals = contexts.total(torch.ones(len(contexts), 1))[:, 0]
    np.testing.assert_array_equal(totals, np.bincount(contexts.group))  # a window is a decision


def test_decisions_are_chosen_by_a_mask_and_none_is_an_error(collected):
    run, method, model = untrained(collected("contexts", *GREEDY))
    contexts = rollout(run, method, model, run.split.held_out_tasks)
    chosen = contexts.where(contexts.time == 2)
    assert 0 < chosen.decided.sum() == (contexts.decided & (contexts.time == 2)).sum()
    assert chosen.decided.any(1).all() and (chosen.time == 2)[chosen.decided].all()
    with pytest.raises(ConfigError, match="no such decision"):
        contexts.where(contexts.time < 0)
