"""Training windows: every k-th whole episode of one actor, and nothing else.

Every transition of the histories here carries its own number, so that a window tells where each of
its entries comes from.
"""

import itertools
from dataclasses import dataclass

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from ad.data.sampler import TaskHistory, WindowSampler
from ad.data.spec import Spec
from ad.methods.base import Method
from envs.oracle import TaskOracle
from envs.spaces import Discrete

REWARDS = np.array([-1.0, 0.0, 2.5], np.float32)
SPEC = Spec({"": Discrete(8000, (8000,))}, 9000, tuple(REWARDS.tolist()), (-1.0, 2.5), 9)
NONE = SPEC.padding
FIELDS = Method.fields
PROPERTY = settings(max_examples=150, deadline=None, derandomize=True)


@dataclass
class Histories:
    """Histories of some tasks, and the sequences of transition numbers that windows may show."""

    arrays: list[dict[str, np.ndarray]]
    stride: int
    part: tuple[float, float]

    def windows(self, context_length: int, from_start: float = 0.0) -> WindowSampler:
        tasks = [TaskHistory(arrays, np.zeros(1, int), TaskOracle()) for arrays in self.arrays]
        settings = {"history_part": self.part, "from_start": from_start}
        return WindowSampler(tasks, SPEC, FIELDS, context_length, self.stride, **settings)

    def episodes(self) -> list[list[list[int]]]:
        """The transition numbers of each whole episode inside the part, actor after actor."""
        return [
            whole_episodes(history["observation"][actor], done, self.part)
            for history in self.arrays
            for actor, done in enumerate(history["terminated"] | history["truncated"])
        ]

    def sequences(self) -> list[list[int]]:
        """Phase p of an actor: its episodes p, p + k, ... end to end; empty ones left out."""
        phases = [actor[p :: self.stride] for actor in self.episodes() for p in range(self.stride)]
        return [joined(phase) for phase in phases if phase]


def joined(lists: list[list]) -> list:
    """Concatenate lists."""
    return list(itertools.chain.from_iterable(lists))


def whole_episodes(numbers, done, part: tuple[float, float]) -> list[list[int]]:
    lowest, highest = (share * len(done) for share in part)
    found, start = [], 0
    for t in np.flatnonzero(done):
        if start >= lowest and t + 1 <= highest:
            found.append(numbers[start : t + 1].tolist())
        start = t + 1
    return found


def numbered(done: np.ndarray, truncated: np.ndarray, first: int) -> dict[str, np.ndarray]:
    """A history [actors, T] with these ends; fields follow from a transition's number."""
    number = first + np.arange(done.size).reshape(done.shape)
    return {
        "observation": number,
        "action": number + 1000,
        "reward": REWARDS[number % 3],
        "next_observation": number + 2000,
        "terminated": done & ~truncated,
        "truncated": done & truncated,
        "time": number + 3000,
    }


def expected_entry(name: str, number: int) -> int:
    """Return the fields that a window has of the transition `number`, or of none (-1)."""
    offsets = {"observation": 0, "action": 1000, "next_observation": 2000, "time": 3000}
    if number == -1:
        return NONE[name]
    return REWARDS[number % 3] if name == "reward" else number + offsets[name]


@st.composite
def histories(draw):
    """One to three tasks of up to three actors of up to 14 steps; at least one whole episode."""
    stride = draw(st.integers(1, 4))
    part = draw(st.sampled_from([(0.0, 1.0), (0.0, 0.5), (0.5, 1.0), (0.25, 0.75), (0.9, 1.0)]))
    made, first = [], 0
    for _ in range(draw(st.integers(1, 3))):
        shape = draw(st.tuples(st.integers(1, 3), st.integers(1, 14)))
        flags = arrays.arrays(bool, shape)
        made.append(numbered(draw(flags), draw(flags), first))
        first += made[-1]["observation"].size
    result = Histories(made, stride, part)
    assume(result.sequences())
    return result


def read_whole(windows: WindowSampler) -> list[list[int]]:
    """The transition numbers of every sequence, each read as one window from its start."""
    every = np.arange(len(windows.lengths))
    content = windows.windows(every, np.zeros_like(every))
    shown = zip(content["observation"], content["valid"], strict=True)
    return [row[1:][real[1:]].tolist() for row, real in shown]


@PROPERTY
@given(histories())
def test_a_sequence_is_every_kth_whole_episode_of_one_actor_in_order(case):
    assert read_whole(case.windows(50)) == case.sequences()


@PROPERTY
@given(histories(), st.integers(1, 8), st.integers(0, 1000), st.sampled_from([0.0, 0.5, 1.0]))
def test_a_window_is_a_piece_of_one_sequence_and_the_transition_before_it(
    case, context_length, seed, from_start
):
    windows, sequences = case.windows(context_length, from_start), case.sequences()
    content = windows.sample(np.random.default_rng(seed), 20)
    before_exists, valid = content["valid"][:, 0], content["valid"][:, 1:]
    assert valid.shape == (20, context_length) and valid[:, 0].all()
    for b in range(20):
        shown = content["observation"][b, 1:][valid[b]].tolist()
        sequence = next(s for s in sequences if shown[0] in s)
        start = sequence.index(shown[0])
        assert shown == sequence[start : start + context_length]
        before = sequence[start - 1] if start else -1
        assert before_exists[b] == (start > 0)
        for name in FIELDS:
            real = content[name][b, np.r_[True, valid[b]]]
            expected = [expected_entry(name, number) for number in [before, *shown]]
            np.testing.assert_array_equal(real, expected)
        steps = content["step"][b, 1:][valid[b]]
        assert steps.tolist() == list(range(start, start + len(shown)))


@PROPERTY
@given(histories(), st.integers(1, 8))
def test_there_are_as_many_choices_as_places_for_a_window(case, context_length):
    places = [max(len(sequence) - context_length + 1, 1) for sequence in case.sequences()]
    assert case.windows(context_length).num_starts.tolist() == np.cumsum(places).tolist()


def three_sequences(from_start: float = 0.0) -> WindowSampler:
    """One actor of 12 steps; its episodes of 5, 4 and 3 steps are three phases."""
    done = np.isin(np.arange(12), [4, 8, 11])[None]
    return Histories([numbered(done, ~done, 0)], 3, (0.0, 1.0)).windows(3, from_start)


def test_every_place_is_equally_likely():
    content = three_sequences().sample(np.random.default_rng(0), 12000)
    first, count = np.unique(content["observation"][:, 1], return_counts=True)
    assert first.tolist() == [0, 1, 2, 5, 6, 9]
    np.testing.assert_allclose(count, 2000, atol=5 * (2000 * 5 / 6) ** 0.5)


def test_every_sequence_is_equally_likely_among_windows_from_the_start():
    content = three_sequences(1.0).sample(np.random.default_rng(0), 12000)
    first, count = np.unique(content["observation"][:, 1], return_counts=True)
    assert first.tolist() == [0, 5, 9]
    np.testing.assert_allclose(count, 4000, atol=5 * (4000 * 2 / 3) ** 0.5)


def test_the_share_of_windows_from_the_start_is_what_was_asked_for():
    content = three_sequences(0.25).sample(np.random.default_rng(0), 12000)
    share = (content["observation"][:, 0] == NONE["observation"]).mean()
    assert share == pytest.approx(0.25 + 0.75 * 3 / 6, abs=0.025)


def test_windows_hold_int64_indices_and_float32_rewards():
    content = three_sequences().sample(np.random.default_rng(0), 4)
    assert content.keys() == {*FIELDS, "step", "valid"}
    assert all(array.shape == (4, 4) for array in content.values())
    dtypes = {name: array.dtype for name, array in content.items()}
    assert dtypes.pop("reward") == np.float32 and dtypes.pop("valid") == np.bool_
    assert set(dtypes.values()) == {np.dtype(np.int64)}
    rewards = content["reward"][:, 1:]
    np.testing.assert_array_equal(rewards, REWARDS[content["observation"][:, 1:] % 3])
