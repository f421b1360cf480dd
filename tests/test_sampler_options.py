"""Options of training windows: permuted actions and observations, and the actors to train on."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ad.data.dataset import actor_scores, best_actors
from ad.data.load import load_training_set
from ad.data.permutation import PermutedWindows, permutations
from ad.data.sampler import TaskHistory, WindowSampler
from ad.data.spec import Spec
from ad.methods.base import Method
from ad.runtime.run import Run
from envs.oracle import TaskOracle
from envs.spaces import Discrete

SPEC = Spec({"": Discrete(7, (7,))}, 4, (0.0, 1.0), (0.0, 1.0), 5)
FIELDS = (*Method.fields, "optimal_action", "action_mask")
ROLES = ("observation", "next_observation")
PROPERTY = settings(max_examples=30)


def random_windows(length: int) -> WindowSampler:
    """Return windows of two actors with random transitions, optimal actions and masks."""
    rng, shape = np.random.default_rng(0), (2, 15)
    sizes = {"observation": 7, "next_observation": 7, "action": 4, "time": 5}
    arrays = {name: rng.integers(size, size=shape) for name, size in sizes.items()}
    arrays["reward"] = rng.integers(2, size=shape).astype(np.float32)
    arrays["terminated"] = np.tile(np.arange(15) % 5 == 4, (2, 1))
    arrays["truncated"] = np.zeros(shape, bool)
    derived = {
        "optimal_action": lambda sequences: np.arange(30) % 4,
        "action_mask": lambda sequences: np.arange(120).reshape(30, 4) % 7 < 4,
    }
    history = TaskHistory(arrays, np.zeros(1, int), TaskOracle())
    return WindowSampler([history], SPEC, FIELDS, length, 1, from_start=0.3, derived=derived)


def renaming(plain: np.ndarray, renamed: np.ndarray, size: int) -> dict[int, int]:
    """Return old -> new of two arrays of equal shape, which must be one to one."""
    pairs = set(zip(plain.ravel().tolist(), renamed.ravel().tolist(), strict=True))
    names = dict(pairs)
    assert len(names) == len(pairs) == len(set(names.values()))
    assert set(names.values()) <= set(range(size))
    return names


@PROPERTY
@given(st.sampled_from(["actions", "observations", "both"]), st.integers(1, 12), st.integers(0, 99))
def test_a_window_has_one_permutation_for_all_its_entries_and_fields(permute, length, seed):
    windows = random_windows(length)
    plain = windows.sample(np.random.default_rng(seed), 8)
    batch = PermutedWindows(windows, SPEC, permute).sample(np.random.default_rng(seed), 8)
    assert set(batch) == set(plain)
    untouched = {"reward", "time", "step", "valid"}
    untouched |= {*ROLES} if permute == "actions" else set()
    untouched |= {"action", *FIELDS[-2:]} if permute == "observations" else set()
    for name, values in plain.items():
        assert batch[name].dtype == values.dtype
        if name in untouched:
            np.testing.assert_array_equal(batch[name], values)
    for window, valid in enumerate(plain["valid"]):
        padding = {name: batch[name][window, 0] for name in ("action", *ROLES)}
        if not valid[0]:
            assert padding == {"action": 4, "observation": 7, "next_observation": 7}
        pairs = [
            (b["action"][window, valid], b["optimal_action"][window, valid]) for b in (plain, batch)
        ]
        names = renaming(*(np.stack(pair) for pair in pairs), 4)
        for old, new in names.items():
            mask, permuted = (b["action_mask"][window, valid] for b in (plain, batch))
            np.testing.assert_array_equal(permuted[:, new], mask[:, old])
        seen = [np.stack([b[role][window, valid] for role in ROLES]) for b in (plain, batch)]
        renaming(*seen, 7)


def test_every_permutation_is_equally_likely():
    drawn = permutations(np.random.default_rng(0), 6000, 3)
    assert (drawn[:, 3] == 3).all()
    orders, counts = np.unique(drawn, axis=0, return_counts=True)
    assert len(orders) == 6
    np.testing.assert_allclose(counts / 6000, 1 / 6, atol=3 * np.sqrt(1 / 6 * 5 / 6 / 6000))


# Returns of single-step episodes: from 0 to 1 at once and back, steadily, never, and only once.
RETURNS = [[0, 1, 0, 1, 0, 1], [0, 0, 0, 1, 1, 1], [0, 0, 0, 0, 0, 0], [2, 0, 0, 0, 0, 0]]
SCORES = [1 / 2 - 1 / 2, 1 / 2 - 1 / 10, 0, -1 - 1 / 5]  # of the range 2, with a weight of 1


def history_of(returns) -> dict[str, np.ndarray]:
    """Return a history of actors whose episodes have one step."""
    reward = np.array(returns, np.float32)
    done = np.ones(reward.shape, bool)
    return {"reward": reward, "terminated": done, "truncated": ~done}


def test_scores_are_improvement_and_stability_by_hand():
    np.testing.assert_allclose(actor_scores(history_of(RETURNS)), SCORES)
    twice = history_of(2 * np.array(RETURNS))
    np.testing.assert_allclose(actor_scores(twice), SCORES)


def test_improvement_compares_the_last_tenth_with_the_first():
    rising = np.arange(40)[None] / 39
    score = actor_scores(history_of(rising))[0]
    assert score == pytest.approx(36 / 39 - 1 / 39)


def test_the_best_actors_are_kept_in_their_order_and_the_first_of_those_that_tie():
    history = history_of(RETURNS)
    for fraction, kept in ((0.1, [1]), (0.5, [0, 1]), (0.75, [0, 1, 2]), (1.0, [0, 1, 2, 3])):
        assert best_actors(history, fraction).tolist() == kept
    assert best_actors(history_of(np.zeros((3, 4))), 0.5).tolist() == [0, 1]


def test_an_actor_without_a_whole_episode_comes_last():
    history = history_of(RETURNS)
    history["terminated"][0] = False
    assert best_actors(history, 0.75).tolist() == [1, 2, 3]


def test_only_the_best_actors_are_trained_on_and_held_out_ones_stay(collected):
    plain = Run.open(collected("all_actors"))
    run = Run.open(collected("best_actors", "--data.best_actors", "0.5"))
    dataset = load_training_set(run)
    numbered = [
        history._replace(arrays={**history.arrays, "observation": _numbers(history, task)})
        for task, history in enumerate(dataset.histories)
    ]
    dataset = replace(dataset, histories=numbered)
    shown = set(np.unique(dataset.sampler(("observation",)).data["observation"]).tolist())
    expected = set()
    for task, history in enumerate(load_training_set(plain).histories):
        training = {name: array[:3] for name, array in history.arrays.items()}
        expected |= {4 * task + int(actor) for actor in best_actors(training, 0.5)}
    assert shown == expected and len(shown) == 2 * len(numbered)
    held_out = dataset.sampler(("observation",), held_out=True).data["observation"]
    assert set(held_out.tolist()) == {4 * task + 3 for task in range(len(numbered))}


def test_what_is_asked_for_is_reached_in_the_steps_that_are_trained_on(collected):
    whole = load_training_set(Run.open(collected("all_steps"))).spec
    first = load_training_set(Run.open(collected("first_steps", "--data.env_steps", "20"))).spec
    assert first.reached_return < whole.reached_return and first.rewards == whole.rewards


def _numbers(history: TaskHistory, task: int) -> np.ndarray:
    """Return observations that hold the number of their actor among those of all tasks."""
    shape = history.arrays["reward"].shape
    return np.broadcast_to(4 * task + np.arange(shape[0])[:, None], shape)
