"""The decision-pretrained transformer: optimal actions, and contexts of whole episodes."""

import numpy as np
import pytest
import torch
from policies import SMALL, SPEC, Recorded, random_model

from ad.config.schema import MethodConfig
from ad.data.derived import Sequences, optimal_action
from ad.data.sampler import TaskHistory, WindowSampler
from ad.data.spec import Spec
from ad.methods import build_method
from ad.methods.dpt import ShuffledWindows
from ad.registry import TOKENIZERS
from ad.rollout.rollout import rollout, sampled
from envs import make_base, make_vec
from envs.oracle import TaskOracle
from envs.spaces import Discrete


def test_the_loss_is_the_surprise_of_the_optimal_actions_and_not_of_those_taken(
    spec, random_window
):
    method = build_method(MethodConfig("dpt"))
    torch.manual_seed(0)
    model, window = method.build(spec, SMALL), random_window(4, 6, seed=0)
    window["valid"][1, 5:] = False
    window["optimal_action"] = window["observation"] % 5
    loss, metrics = method.loss(model, window)
    log_probs, valid = model(window).log_softmax(-1), window["valid"][:, 1:]
    targets = window["optimal_action"][:, 1:]
    surprise = -log_probs.gather(-1, targets[..., None])[..., 0][valid]
    torch.testing.assert_close(loss, surprise.mean())
    hits = (log_probs.argmax(-1) == targets)[valid]
    torch.testing.assert_close(metrics["accuracy"], hits.float().mean())
    window["action_mask"] = torch.zeros(4, 7, 5, dtype=torch.bool)
    window["action_mask"].scatter_(2, window["optimal_action"][..., None], True)
    assert method.loss(model, window)[0].abs() < 1e-6


def test_of_several_optimal_actions_each_is_a_target():
    world, steps = make_base("DarkRoom-v0", size=3), 4000
    cells = np.zeros(steps, np.int64)  # a corner; the goal is the opposite one
    sequences = Sequences(
        {"observation": cells}, np.array([steps]), np.array([2, 2]), world, cells / steps
    )
    drawn = optimal_action(sequences)
    np.testing.assert_array_equal(drawn, optimal_action(sequences))
    share = np.bincount(drawn, minlength=world.num_actions) / steps
    np.testing.assert_allclose(share, world.optimal_policy([[2, 2]])[0, 0], atol=0.05)
    assert (share > 0.4).sum() == 2


def numbered_windows(length: int) -> WindowSampler:
    """Return windows of two actors whose transitions carry their number in every field."""
    number = np.arange(24).reshape(2, 12)
    done = number % 4 == 3
    fields = ("observation", "action", "next_observation", "time")
    history = dict.fromkeys(fields, number) | {"terminated": done, "truncated": ~done & False}
    history["reward"] = number.astype(np.float32)
    spec = Spec({"": Discrete(24, (24,))}, 24, (), (0.0, 23.0), 4)
    method = build_method(MethodConfig())
    task = TaskHistory(history, np.zeros(1, int), TaskOracle())
    return WindowSampler([task], spec, method.fields, length, 1)


@pytest.mark.parametrize("length", [5, 20])
def test_a_shuffled_window_holds_the_same_transitions_whole_in_another_order(length):
    windows = numbered_windows(length)
    plain = windows.sample(np.random.default_rng(0), 50)
    batch = ShuffledWindows(windows).sample(np.random.default_rng(0), 50)
    np.testing.assert_array_equal(batch["valid"], plain["valid"])
    np.testing.assert_array_equal(batch["step"], plain["step"])
    valid = batch["valid"].copy()
    valid[:, 0] = False
    for name in ("action", "reward", "next_observation", "time"):
        np.testing.assert_array_equal(batch[name][valid], batch["observation"][valid])
    for name, values in plain.items():
        np.testing.assert_array_equal(batch[name][:, 0], values[:, 0])
    one, other = (np.where(valid, b["observation"], -1) for b in (plain, batch))
    np.testing.assert_array_equal(np.sort(one), np.sort(other))
    assert (one != other).any(1).mean() > 0.9


def test_every_order_of_a_shuffled_window_is_equally_likely():
    windows = ShuffledWindows(numbered_windows(3))
    batch = windows.sample(np.random.default_rng(0), 6000)["observation"][:, 1:]
    orders, counts = np.unique(batch.argsort(1), axis=0, return_counts=True)
    assert len(orders) == 6
    np.testing.assert_allclose(counts / 6000, 1 / 6, atol=3 * np.sqrt(1 / 6 * 5 / 6 / 6000))


def played_logits(context_length: int, **settings):
    """Return model, trajectories and logits of a rollout that commits to episodes."""
    method, model = random_model("dpt", **settings)
    policy = Recorded(method.policy(model, 3, context_length, method.PolicySettings("episode")))
    tasks = np.array([[0, 0], [1, 2], [2, 2]])
    world = make_vec("DarkRoom-v0", tasks, 6, size=3)
    played = rollout(policy, world, [1, 2, 3], 4, sampled(), record=range(3)).trajectory
    return model, played, policy.logits


@pytest.mark.parametrize("position", ["env_time", "window", "history"])
@pytest.mark.parametrize("tokenizer", TOKENIZERS)
@pytest.mark.parametrize("context_length", [1, 4, 30])
def test_a_committed_decision_is_that_of_a_window_of_the_past_episodes_and_its_query(
    context_length, tokenizer, position
):
    model, played, logits = played_logits(context_length, tokenizer=tokenizer, position=position)
    for env in range(3):
        episodes = played["episode"][env][played["episode"][env] >= 0]
        for number, begun in enumerate(np.searchsorted(episodes, episodes)):
            entries = [*range(begun - min(begun, context_length - 1), begun), number]
            window = {name: [padding] for name, padding in SPEC.padding.items()}
            for name, values in window.items():
                values += played[name][env, entries].tolist()
                values[-1] = values[-1] if name in ("observation", "time") else SPEC.padding[name]
            steps = [0, *entries[:-1], begun]
            window |= {"step": steps, "valid": [False] + [True] * len(entries)}
            shown = {name: torch.tensor([values]) for name, values in window.items()}
            shown["reward"] = shown["reward"].double()
            expected = model(shown)[0, -1]
            torch.testing.assert_close(logits[env][number], expected, atol=1e-6, rtol=0)


def test_branched_contexts_go_on_alike():
    method, model = random_model("dpt")
    policy, generator = (
        method.policy(model, 3, 5, method.PolicySettings("episode")),
        torch.Generator(),
    )
    for step in range(12):
        envs = torch.tensor([0, 1, 2] if step < 4 else [0, 1, 0])
        if step == 4:
            policy.select(torch.tensor([2, 0, 2]))
        cells, following = torch.randint(9, (2, 3), generator=generator)[:, envs]
        ended = torch.randint(2, (3,), generator=generator)[envs] > 0
        logits = policy.act(cells, torch.full((3,), step % 3))
        policy.observe(cells % 5, cells % 2, ended, ended & False, following)
        if step >= 4:
            torch.testing.assert_close(logits[0], logits[2])
    assert (logits[0] - logits[1]).abs().max() > 1e-3
