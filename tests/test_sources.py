"""Sources that learn in rooms: the transitions are the world's, contiguous and reproducible."""

import numpy as np
import pytest
import torch
from conftest import SMOKE
from fields import FIELDS
from recorded import assert_a_missing_history_comes_back_with_the_same_bytes, played
from source_words import ROOM_SOURCES, SOURCE_WORDS

from ad.cli import VERBS, exit_code
from ad.collection.collect import collect
from ad.collection.job import new_source
from ad.runtime.parallel import THREADS
from ad.runtime.run import Run
from ad.sources.actors import CHUNK_STEPS
from ad.sources.noisy_expert import NoiseDistillation, Settings
from envs import make_base, make_vec
from envs.grid.dark_room import DarkRoom
from envs.rng import uniform
from envs.wrappers import VectorEpisodeLength

TASKS = np.array([[0, 0], [0, 1], [2, 2]])
STEPS = 60  # of each of the 3 x 4 environments
WORLDS = {"terminate": {}, "dense": {"terminate": False}, "random start": {"start": "random"}}


@pytest.fixture(params=ROOM_SOURCES)
def algorithm(request) -> list[str]:
    """The words that choose each registered source that learns in rooms."""
    return SOURCE_WORDS[request.param]


@pytest.fixture
def play(smoke, tmp_path):
    """play(words, tasks, steps): what a source records, arrays [T, K, E] by field."""

    def run(words: list[str], tasks=TASKS, steps: int = STEPS) -> dict[str, np.ndarray]:
        return played(new_source(smoke(tmp_path, *words), np.asarray(tasks)), steps)

    return run


def settings(kwargs: dict) -> list[str]:
    pairs = [(f"--env.kwargs.{name}", str(value).lower()) for name, value in kwargs.items()]
    return [word for pair in pairs for word in pair]


@pytest.fixture(params=WORLDS)
def room(request):
    """The settings of each kind of 3 x 3 room, and the room itself."""
    kwargs = WORLDS[request.param]
    return settings(kwargs), make_base("DarkRoom-v0", size=3, **kwargs)


def ended(data: dict[str, np.ndarray]) -> np.ndarray:
    return data["terminated"] | data["truncated"]


def test_recorded_transitions_are_those_of_the_world(algorithm, room, play):
    words, world = room
    data = play(algorithm + words)
    moved = world.successors()[data["observation"], data["action"]]
    np.testing.assert_array_equal(data["next_observation"], moved)
    continues = ~ended(data)[:-1]
    following, reached = data["observation"][1:], data["next_observation"][:-1]
    np.testing.assert_array_equal(following[continues], reached[continues])
    first = np.concatenate([np.ones((1, 3, 4), bool), ~continues])
    assert np.isin(data["observation"][first], world.start_observations()).all()
    np.testing.assert_array_equal(data["time"] == 0, first)
    np.testing.assert_array_equal(data["time"][1:][continues], data["time"][:-1][continues] + 1)
    np.testing.assert_array_equal(data["truncated"], (data["time"] == 4) & ~data["terminated"])
    assert {name: array.dtype for name, array in data.items()} == {
        name: field.dtype for name, field in FIELDS.items()
    }


def test_the_final_observation_is_stored_at_an_end(algorithm, play):
    data = play(algorithm)
    goal = (TASKS @ [3, 1])[None, :, None]  # [1, K, 1]
    on_goal = data["next_observation"] == goal
    assert data["terminated"].any() and data["truncated"].any()
    np.testing.assert_array_equal(data["terminated"], on_goal)
    np.testing.assert_array_equal(data["reward"], on_goal)


def test_an_actor_continues_from_chunk_to_chunk(algorithm, smoke, tmp_path):
    source = new_source(smoke(tmp_path, *algorithm), TASKS[:1])
    first, second = source.run(CHUNK_STEPS + 3)
    assert (len(first), len(second)) == (CHUNK_STEPS, 3)
    continues = ~ended(first.arrays)[-1]
    following, reached = second.arrays["observation"][0], first.arrays["next_observation"][-1]
    np.testing.assert_array_equal(following[continues], reached[continues])


def test_a_history_shorter_than_a_chunk_or_a_rollout_is_complete(algorithm, play):
    assert len(play(algorithm, steps=7)["action"]) == 7


def test_every_statistic_of_a_chunk_has_a_number_for_each_agent(algorithm, smoke, tmp_path):
    (chunk,) = new_source(smoke(tmp_path, *algorithm), TASKS).run(STEPS)
    assert chunk.statistics
    for values in chunk.statistics.values():
        assert all(np.shape(value) == (3,) and np.isfinite(value).all() for value in values)


def test_two_actors_of_an_agent_act_differently(algorithm, play):
    action = play(algorithm)["action"]
    assert (action[..., 0] != action[..., 1]).mean() > 0.2


def test_a_task_has_the_same_history_alone_as_among_others(algorithm, room, play):
    together, alone = (play(algorithm + room[0], tasks) for tasks in (TASKS, TASKS[[1]]))
    for name in FIELDS:
        np.testing.assert_array_equal(together[name][:, [1]], alone[name])


def test_a_missing_history_is_collected_again_with_the_same_bytes(algorithm, smoke, tmp_path):
    run = Run.open(smoke(tmp_path, *algorithm, "--source.env_steps", "800"))
    assert_a_missing_history_comes_back_with_the_same_bytes(run)


NOISE = ["--source.algorithm", "noise_distillation", "--source.num_envs", "400"]
NOISE += ["--source.env_steps", str(400 * STEPS), "--data.context_length", "8"]


def closer(data: dict[str, np.ndarray], tasks=TASKS) -> np.ndarray:
    """Whether each step shortens the way to the goal, bool [T, K, E]."""
    goals = np.asarray(tasks)[None, :, None]  # [1, K, 1, 2]

    def distance(cells):
        return np.abs(np.stack(np.divmod(cells.astype(int), 3), -1) - goals).sum(-1)

    return distance(data["next_observation"]) < distance(data["observation"])


def test_noise_distillation_begins_at_random_and_ends_optimal(play):
    data = play(NOISE)
    first = data["action"][0].ravel()  # [1200]
    share = np.bincount(first, minlength=5) / len(first)
    np.testing.assert_allclose(share, 0.2, atol=5 * (0.2 * 0.8 / len(first)) ** 0.5)
    assert closer(data)[-1].all()


def test_noise_distillation_takes_both_of_two_shortest_paths(play):
    words = [*NOISE, "--source.settings.noise_start", "0.3", "--source.settings.noise_end", "0.3"]
    data = play(words, [[0, 0]])
    at_start = data["observation"] == 4  # the center: up and left lead to the corner
    counts = np.bincount(data["action"][at_start], minlength=5)
    expected = np.array([0.06, 0.41, 0.06, 0.41, 0.06])
    np.testing.assert_allclose(counts / counts.sum(), expected, atol=0.02)


def noisy(hold: float, noise: float = 1.0, tasks=TASKS, num_envs: int = 100):
    """Return noisy experts in 9 x 9 rooms with episodes of eight steps before their first step."""
    env = make_vec("DarkRoom-v0", np.repeat(tasks, num_envs, axis=0), 8, size=9)
    own = Settings(noise_start=noise, noise_end=noise, hold=hold)
    return NoiseDistillation(own, env, np.asarray(tasks), num_envs, [int(7 + t[0]) for t in tasks])


@pytest.mark.parametrize("hold", [1.0, 2.0, 5.0])
def test_a_random_action_is_held_but_not_at_a_wall_or_into_the_next_episode(hold):
    (chunk,) = noisy(hold).run(80)
    repeats = chunk.arrays["action"][1:] == chunk.arrays["action"][:-1]
    first = chunk.arrays["time"][1:] == 0
    moved = chunk.arrays["next_observation"][:-1] != chunk.arrays["observation"][:-1]
    assert repeats[~first & moved].mean() == pytest.approx(1 - 0.8 / hold, abs=0.02)
    assert repeats[~first & ~moved].mean() == pytest.approx(0.2, abs=0.03)
    assert repeats[first].mean() == pytest.approx(0.2, abs=0.04)


class Counted(NoiseDistillation):
    """Noisy experts that note the share of random actions at each step."""

    def act(self, observations, u):
        actions = super().act(observations, u)
        is_random = uniform(self.noise_keys, self.held["noise"]) < self.noise
        self.shares = [*getattr(self, "shares", []), is_random.mean()]
        return actions


@pytest.mark.parametrize("hold", [1.0, 4.0])
def test_the_share_of_random_actions_is_that_of_the_schedule(hold):
    env = make_vec("DarkRoom-v0", np.repeat(TASKS, 400, axis=0), 8, size=3)
    source = Counted(Settings(hold=hold), env, TASKS, 400, [1, 2, 3])
    list(source.run(41))
    np.testing.assert_allclose(source.shares, np.linspace(1, 0, 41), atol=0.07)
    np.testing.assert_allclose(np.mean(source.shares), 0.5, atol=0.01)


def test_held_noise_falls_with_its_schedule(play):
    helps = closer(play([*NOISE, "--source.settings.hold", "30"]))
    assert helps[-1].all() and not helps[:6].all()


ICE = ["--env.id", "FrozenLake-v1", "--env.kwargs", "{}", "--split.num_train_tasks", "1"]
ICE += ["--env.tasks", "[{is_slippery: true}, {is_slippery: false}]"]


def test_noise_distillation_refuses_a_world_without_an_optimal_policy(tmp_path, capsys):
    words = ["--config_path", str(SMOKE), "--root", str(tmp_path), *ICE]
    assert exit_code(VERBS["collect"], [*words, "--source.algorithm", "noise_distillation"]) == 2
    (sentence,) = capsys.readouterr().err.strip().splitlines()
    assert sentence.startswith("source.algorithm")
    assert not list(tmp_path.iterdir())


class Disguised(DarkRoom):
    """A dark room that shows every cell as the first one; its state is the cell."""

    def states(self):
        return self._cells.copy()

    def _observation(self):
        return np.zeros(self.num_envs, np.int64)


def test_noisy_experts_act_by_the_state_where_the_observation_is_not_the_state():
    chunks = []
    for world_class in (DarkRoom, Disguised):
        env = VectorEpisodeLength(world_class(tasks=TASKS, size=3), 5)
        chunks += NoiseDistillation(Settings(), env, TASKS, 1, [1, 2, 3]).run(STEPS)
    for name in set(FIELDS) - {"observation", "next_observation"}:
        np.testing.assert_array_equal(chunks[0].arrays[name], chunks[1].arrays[name])
    assert not chunks[1].arrays["observation"].any()


def test_collecting_takes_no_more_threads_than_the_configuration_allows(smoke, tmp_path):
    THREADS["most"] = 2
    collect(Run.open(smoke(tmp_path)))  # says --threads 1
    assert THREADS == {"most": 1} and torch.get_num_threads() == 1
