"""MiniGrid as tables: every step is the package's, returns are exact, files are made once."""

import json
import os
import textwrap
from collections import UserList

import gymnasium
import minigrid
import numpy as np
import pytest
from gymnasium.wrappers import TimeLimit
from recorded import played

import envs
from ad.config.schema import EnvConfig
from ad.errors import ConfigError
from ad.registry import SOURCES
from ad.sources import fits
from envs.minigrid import table_files, tabular
from envs.minigrid.encoding import words_of
from envs.minigrid.table_files import VARIABLE
from envs.minigrid.table_world import load_family

TABLE, EMPTY, GO_TO_DOOR = "MiniGridTable-v0", "MiniGrid-Empty-5x5-v0", "MiniGrid-GoToDoor-5x5-v0"
DOORS = {"minigrid_id": GO_TO_DOOR, "seeds": [3, 1, 4]}
CROSSING = "MiniGrid-SimpleCrossingS9N1-v0"
FAMILIES = {
    CROSSING: {"view": 5},
    "MiniGrid-LavaCrossingS9N1-v0": {"view": 3},
    GO_TO_DOOR: {},
    "MiniGrid-KeyCorridorS3R1-v0": {},  # success compares objects
    "MiniGrid-RedBlueDoors-6x6-v0": {"view": 3},
    "BabyAI-OpenDoorsOrderN2-v0": {},  # the order of two instructions, and time limits that differ
}
STRANGER = """
    import numpy as np
    from minigrid.core.world_object import Ball
    from minigrid.envs.empty import EmptyEnv

    RANDOM, NOTHING = np.random.RandomState(0), object()

    class Stranger(EmptyEnv):
        # Every third time that the ball is toggled pays 2 (1 - 0.9 t / T), and changes its color.
        def _gen_grid(self, width, height):
            super()._gen_grid(width, height)
            self.ball = Ball("red")
            self.place_obj(self.ball)
            self.count, self.visited = {"toggled": 0}, set()
            self.rng = getattr(self, "rng", np.random.default_rng(0))

        def step(self, action):
            in_front = self.grid.get(*self.front_pos)
            observation, reward, ended, truncated, info = super().step(action)
            self.visited.add(int(self.agent_pos[0]))
            if action == 5 and in_front is self.ball:
                self.count["toggled"] = (self.count["toggled"] + 1) % 3
                if self.count["toggled"] == 0:
                    reward = 2 * self._reward()
                    self.ball.color = "blue"
                PAYS
            return observation, reward, ended, truncated, info
"""


@pytest.fixture
def stranger(tmp_path):
    """stranger(line) writes the class Stranger, with a line of its own, and returns its place."""

    def write(line: str = "pass") -> str:
        path = tmp_path / "stranger.py"
        path.write_text(textwrap.dedent(STRANGER.replace("PAYS", line)))
        return f"{path}:Stranger"

    return write


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """An empty folder of tables, of which the process has loaded none."""
    monkeypatch.setenv(VARIABLE, str(tmp_path / "tables"))
    load_family.cache_clear()
    return tmp_path / "tables"


def world(minigrid_id: str = EMPTY, seeds=1, **settings):
    return envs.make_base(TABLE, minigrid_id=minigrid_id, seeds=seeds, **settings)


def compare(minigrid_id: str, seeds: list[int], steps: int, view: int = 7, made=None, **arguments):
    """Step the table of each layout and the package alike; return the number of episodes.

    Half of the actions are random, half optimal. `made` is what Gymnasium makes, if not the id.
    """
    settings = {"view": view, "observation": "index", "direction": True, "mission": "words"}
    table = world(minigrid_id, seeds, num_envs=len(seeds), arguments=arguments, **settings)
    policy, rng = table.optimal_policy(table.tasks).cumsum(-1), np.random.default_rng(0)
    theirs = [
        gymnasium.make(made or minigrid_id, disable_env_checker=True, **arguments) for _ in seeds
    ]
    for env in theirs:
        env.unwrapped.agent_view_size = view
    episodes, ended = 0, np.ones(len(seeds), bool)
    table.reset(seed=0)

    def check(expected: dict, k: int) -> None:
        np.testing.assert_array_equal(observed["image"][k], expected["image"])
        assert observed["direction"][k] == expected["direction"]
        assert words_of(observed["mission"][k]) == expected["mission"].replace(",", "")

    for _ in range(steps):
        if ended.any():
            observed, _ = table.reset(options={"reset_mask": ended})
            episodes += ended.sum()
            for k in np.flatnonzero(ended):
                check(theirs[k].reset(seed=seeds[k])[0], k)
        sums = policy[np.arange(len(seeds)), table.states()]
        best = (rng.random((len(seeds), 1)) >= sums).sum(-1).clip(max=sums.shape[1] - 1)
        drawn = rng.integers(sums.shape[1], size=len(seeds))
        actions = np.where(rng.random(len(seeds)) < 0.5, best, drawn)
        observed, *outcome, _ = table.step(actions)
        for k, env in enumerate(theirs):
            expected, reward, *flags, _ = env.step(int(actions[k]))
            check(expected, k)
            assert [one[k] for one in outcome] == [np.float32(reward), *flags]
        ended = outcome[1] | outcome[2]
    return episodes


@pytest.mark.parametrize("steps", [2500, pytest.param(1_000_000, marks=pytest.mark.slow)])
@pytest.mark.parametrize("env_id", FAMILIES)
def test_every_step_is_the_packages(env_id, steps):
    seeds = [0, 2] if steps == 2500 else [0, 1, 2, 3, 4]
    assert compare(env_id, seeds, steps, **FAMILIES[env_id]) > 20


@pytest.mark.parametrize(
    "settings",
    [
        {"observation": "one_hot", "view": 3},
        {"observation": "full", "direction": True},
        {"observation": "rgb", "pixels": 2, "mission": True, "max_steps": 20},
    ],
)
def test_observations_are_those_of_the_world_that_steps_the_package(settings):
    tasks = [{"seed": 3}, {"seed": 4}]
    one = envs.make_vec(TABLE, [[3], [4]], 30, **DOORS, **settings)
    other = envs.make_vec(GO_TO_DOOR, [[0], [1]], 30, task_kwargs=tasks, **settings)
    assert one.single_observation_space == other.single_observation_space
    assert one.unwrapped.max_episode_steps == other.unwrapped.max_episode_steps
    np.testing.assert_equal(one.reset(seed=0)[0], other.reset(seed=0)[0])
    for actions in np.random.default_rng(0).integers(7, size=(50, 2)):
        np.testing.assert_equal(one.step(actions)[:4], other.step(actions)[:4])


def test_a_picture_has_one_number_in_all_layouts():
    tasks, number_of = [[3], [1], [4]], {}
    numbers, pictures = (
        envs.make_vec(TABLE, tasks, 50, observation=kind, **DOORS)
        for kind in ("observation_id", "index")
    )
    first, observed = numbers.reset(seed=0)[0], pictures.reset(seed=0)[0]
    pairs = [*zip(first, observed, strict=True)]
    for actions in np.random.default_rng(1).integers(7, size=(200, 3)):
        pairs += zip(numbers.step(actions)[0], pictures.step(actions)[0], strict=True)
    for number, picture in pairs:
        assert number_of.setdefault(picture.tobytes(), number) == number
    assert len(set(number_of.values())) == len(number_of) > 20
    assert max(number_of.values()) < numbers.single_observation_space.n
    assert world(GO_TO_DOOR, [4, 3, 1]).reset(seed=0)[0][0] == first[2]


@pytest.mark.parametrize("observation", ["observation_id", "index"])
def test_a_model_is_not_evaluated_where_pictures_have_other_numbers(smoke, tmp_path, observation):
    kwargs = {"minigrid_id": GO_TO_DOOR, "seeds": [0, 2, 5, 6], "observation": observation}
    words = ["--env.id", TABLE, "--env.kwargs", json.dumps(kwargs), "--split.num_train_tasks", "2"]
    words += ["--split.held_out", "null", "--model.reward", "projection", "--model.encoder"]
    words += ["one_hot" if observation == "index" else "table", "--evaluation.worlds"]
    assert smoke(tmp_path, *words, json.dumps([{"seeds": [6, 5, 2, 0]}]))
    if observation == "index":  # pictures themselves
        assert smoke(tmp_path, *words, json.dumps([{"seeds": [0, 2, 3, 6]}]))
        return
    with pytest.raises(ConfigError, match="numbers stand for other observations than those of"):
        smoke(tmp_path, *words, json.dumps([{"seeds": [0, 2, 3, 6]}]))


def test_returns_and_policy_of_an_empty_room_are_those_worked_out_by_hand():
    table = world()  # two forward, a turn, two forward, and T = 100
    assert table.max_episode_steps == 100 and table.success_ends
    assert table.shortest_episode([[0]]).tolist() == [5]
    assert table.optimal_return([[0]], None) == pytest.approx([0.955])
    assert table.optimal_return([[0]], 5) == pytest.approx([0.955])
    assert table.optimal_return([[0]], 4).tolist() == [0]
    assert table.random_return([[0]], 5) == pytest.approx([0.955 / 7**5])
    assert world(max_steps=10).optimal_return([[0]], None) == pytest.approx([0.55])
    table.reset(seed=0)
    policy = table.optimal_policy([[0]])[0]
    assert policy[0].tolist() == [0, 0, 1, 0, 0, 0, 0]  # down first takes two turns
    rewards = [table.step(policy[table.states()].argmax(-1))[1] for _ in range(5)]
    assert np.sum(rewards) == pytest.approx(0.955)


def test_a_state_id_is_column_row_direction_and_rank():
    empty = world(observation="state_id")
    assert empty.observation_factors == (5, 5, 4, 1) and empty.states() is None
    assert empty.reset(seed=0)[0].tolist() == [24]  # column 1, row 1, right: (1 * 5 + 1) * 4 + 0
    assert [int(empty.step([action])[0][0]) for action in (2, 2, 2, 1)] == [44, 64, 64, 65]
    doors = world(GO_TO_DOOR, [3, 1, 4], observation="state_id")
    for numbers, table in zip(
        doors._numbers, (world(GO_TO_DOOR, [k]) for k in (3, 1, 4)), strict=True
    ):
        own = numbers[: table._table.terminal.shape[1]]
        assert len(set(own.tolist())) == len(own)  # states of which doors are open differ in rank


def learn(name: str, steps: int, num_envs: int, observation: str = "state_id", **settings):
    """Let a source learn three small crossings by an observation, in episodes of 20 steps.

    Return the source, and return / optimal return of the last episode of each actor, [3, N].
    """
    kwargs = {"minigrid_id": CROSSING, "seeds": 3, "arguments": {"size": 5}, "max_steps": 20}
    tasks = world(observation="state_id", **kwargs).all_tasks()
    env = envs.make_vec(TABLE, tasks.repeat(num_envs, 0), 20, observation=observation, **kwargs)
    agents = SOURCES.load(name)
    source = agents(agents.Settings(**settings), env, tasks, num_envs, [1, 2, 3])
    data, returns = played(source, steps), np.zeros((3, num_envs))
    for k, n in np.ndindex(returns.shape):
        ends = np.flatnonzero((data["terminated"] | data["truncated"])[:, k, n])
        returns[k, n] = data["reward"][ends[-2] + 1 : ends[-1] + 1, k, n].sum()
    return source, data, returns / env.unwrapped.optimal_return(tasks, 20)[:, None]


@pytest.mark.parametrize(
    ("name", "steps", "least", "settings"),
    [
        ("q_learning", 2000, 1, {"initial_value": 0.5, "discount": 0.9, "planning_steps": 40}),
        ("a2c", 15_000, 0.8, {}),
        ("ppo", 3000, 0.8, {}),
        ("posterior_sampling", 100, 1, {}),
    ],
)
def test_sources_find_the_best_path_through_a_crossing(name, steps, least, settings):
    source, _, share = learn(name, steps, 5, **settings)
    assert share.mean() >= least - 1e-6 and share.max() == pytest.approx(1)
    if name == "posterior_sampling":
        np.testing.assert_array_equal(source.possible.reshape(3, 5, 3)[:, 0], np.eye(3))


def test_a_table_of_pictures_is_that_of_their_numbers():
    read, *pictures = (
        learn("q_learning", 500, 3, kind, initial_value=0.5, planning_steps=0)
        for kind in ("observation_id", "index", "one_hot", "rgb")
    )
    assert read[2].max() > 0
    for source, data, _ in pictures:
        assert data["observation"].shape[3:] == source.actors.env.single_observation_space.shape
        np.testing.assert_array_equal(data["action"], read[1]["action"])
        assert source.values.shape == read[0].values.shape
    for direction in (True, False):  # a further part of the observation
        kwargs = DOORS | {"observation": "index", "direction": direction}
        assert fits("a2c", EnvConfig(TABLE, kwargs, 20), world(**kwargs)) == (not direction)


@pytest.mark.parametrize("observation", ["observation_id", "state_id"])
def test_videos_and_renders_are_the_packages(observation):
    vec_env = envs.make_vec(TABLE, [[4]], 30, observation=observation, **DOORS)
    env = envs.make(TABLE, None, task=[4], render_mode="rgb_array", **DOORS)
    theirs, actions = gymnasium.make(GO_TO_DOOR), [1, 2, 2, 0]
    theirs.reset(seed=4), env.reset(seed=0)
    expected, seen = [theirs.unwrapped.get_frame()], [vec_env.reset(seed=0)[0]]
    for action in actions:
        theirs.step(action), env.step(action)
        expected.append(theirs.unwrapped.get_frame())
        seen.append(vec_env.step([action])[0])
        np.testing.assert_array_equal(env.render(), expected[-1])
    seen = np.concatenate(seen)
    transitions = {"observation": seen[:-1], "next_observation": seen[1:], "action": actions}
    np.testing.assert_array_equal(vec_env.unwrapped.frames([4], transitions), expected)


def test_an_environment_of_your_own_is_a_table_by_all_its_attributes(stranger, folder, monkeypatch):
    place = stranger()
    gymnasium.register("Stranger-v0", envs.registry.load_class(place))
    assert list(envs.registry.file_hashes(EMPTY, place, 3)) == [place]
    assert compare(place, [1], 1000, made="Stranger-v0", size=4) > 10
    assert not folder.exists()  # the source is newer than the process
    monkeypatch.setattr(table_files, "STARTED", float("inf"))
    around_self = "self.place = lambda: self.agent_pos"
    for line in ("pass", "ended = True; reward = self._reward() / 300", around_self):
        stranger(line)
        load_family.cache_clear()
        assert world(place, [1], arguments={"size": 4}).optimal_return([[1]], None) > 2
    assert len(list(folder.iterdir())) == 3


def test_a_constant_of_a_module_is_the_same_object_in_all_states(stranger):
    line = "ended = self.count.get('last') is NOTHING; reward = ended * self._reward(); "
    place = stranger(f"{line}self.count.update(toggled=0, last=NOTHING)")
    gymnasium.register("Alike-v0", envs.registry.load_class(place))
    assert compare(place, [1], 5000, made="Alike-v0", size=4) > 100
    del gymnasium.registry["Alike-v0"]


def test_an_id_may_be_registered_again_and_limit_its_episodes_itself(folder, monkeypatch):
    from minigrid.envs.empty import EmptyEnv

    monkeypatch.setattr(table_files, "STARTED", float("inf"))
    for steps in (5, 7):
        make = lambda n=steps, **rest: TimeLimit(EmptyEnv(size=4, **rest), n)  # noqa: E731
        gymnasium.register("Limited-v0", make, max_episode_steps=9)
        assert world("Limited-v0").max_episode_steps == steps
        del gymnasium.registry["Limited-v0"]
    assert not folder.exists()  # what a function holds is in no file


def test_tables_are_kept_by_all_of_an_array_and_not_by_other_objects(tmp_path, folder, monkeypatch):
    monkeypatch.setattr(table_files, "STARTED", float("inf"))
    code = """
        from minigrid.envs.empty import EmptyEnv

        class Timed(EmptyEnv):
            def __init__(self, steps, **rest):
                super().__init__(size=4, max_steps=int(steps[1000]), **rest)
    """
    (tmp_path / "timed.py").write_text(textwrap.dedent(code))
    kind = envs.registry.load_class(f"{tmp_path}/timed.py:Timed")
    for steps in (9, 7, 5):
        array = np.repeat([0, steps, 0], (1000, 1, 1000))  # whose text leaves out its middle
        kwargs = {"steps": UserList(array) if steps == 5 else array}
        gymnasium.register("Timed-v0", kind, kwargs=kwargs)
        load_family.cache_clear()
        assert world("Timed-v0").max_episode_steps == steps
        del gymnasium.registry["Timed-v0"]
    assert len(list(folder.iterdir())) == 2


@pytest.mark.parametrize("steps", [24, 64, 76, 100])
def test_rewards_in_float32_are_those_of_a_table(stranger, steps):
    place = stranger("ended = True; reward = np.float32(self._reward())")
    assert world(place, [1], max_steps=steps, arguments={"size": 4}).optimal_return([[1]], 20) > 0.5


@pytest.mark.parametrize(
    ("line", "sentence"),
    [
        ("reward = 1", r"a step pays 1 as the first and 1 as the last one"),
        ("self.ball.color = 'green' if self.step_count > 9 else 'red'", "depends on its time"),
        ("self.ball.color = 'green' if 9 < self.step_count < 60 else 'red'", "depends on its time"),
        ("self.step_count += 3", "counts as another number of steps than one"),
        ("truncated = True", "truncated at another step"),
        ("self.np_random.random()", "draws random numbers"),
        ("reward *= self.rng.random() > 0.001", "draws random numbers"),
        ("self.action_space.sample()", "draws random numbers"),
        ("reward *= np.random.random() > 0.001", "draws random numbers"),
        ("reward *= RANDOM.rand() > 0.001", "draws random numbers"),
        ("reward *= __import__('random').random() > 0.001", "draws random numbers"),
        ("self.visited.add(Ball('red'))", "a set of objects, which have no order"),
        ("raise SystemExit", "SystemExit"),
        ("self.has_paid = ended = True", "another reset with the same seed leads to another state"),
        ("self.clock = (n for n in ())", "cannot pickle"),
        ("self.note = [0].append", "a function that may hold a state"),
        ("count = 0; self.note = lambda: count", "a function that may hold a state"),
        ("self.note = lambda held=[0]: held", "a function that may hold a state"),
        ("1 / 0", "division by zero"),
    ],
)
def test_an_environment_that_is_no_table_is_refused_in_one_sentence(stranger, line, sentence):
    with pytest.raises(ValueError, match=rf"with seed 0 is no table: .*{sentence}"):
        world(stranger(line), arguments={"size": 4})


def test_another_first_step_and_another_time_limit_are_refused(folder, monkeypatch):
    from minigrid.envs.empty import EmptyEnv

    make, reset = EmptyEnv.__init__, EmptyEnv.reset
    monkeypatch.setattr(EmptyEnv, "__init__", lambda self, max_steps=0, **rest: make(self, **rest))
    with pytest.raises(ValueError, match="does not keep to its argument max_steps"):
        world(max_steps=9)
    monkeypatch.setattr(
        EmptyEnv, "reset", lambda self, **rest: (reset(self, **rest), self.step(0))[1][::4]
    )
    with pytest.raises(ValueError, match="begins at another step"):
        world(seeds=[7])


@pytest.mark.slow  # once it ended the process of the tests itself, for which others then waited
def test_a_killed_process_is_one_sentence(stranger, monkeypatch):
    monkeypatch.setenv("MINIGRID_WORKERS", "2")
    with pytest.raises(ValueError, match="a process that makes tables ended"):
        world(stranger("__import__('os')._exit(9)"), [1, 2], arguments={"size": 4})


def test_what_is_no_table_in_the_package_is_refused(monkeypatch):
    monkeypatch.setattr(tabular, "MAX_STATES", 100)
    refused = {
        "MiniGrid-Dynamic-Obstacles-5x5-v0": "draws random numbers",
        "MiniGrid-Empty-8x8-v0": "more than 100 states",
        "MiniGrid-DorKey-6x6-v0": "did you mean MiniGrid-DoorKey-6x6-v0",
        "DarkRoom-v0": "is no environment of MiniGrid",
        "CartPole-v1": "CartPoleEnv is not one MiniGridEnv",
    }
    for env_id, sentence in refused.items():
        with pytest.raises(ValueError, match=sentence):
            world(env_id)
    with pytest.raises(ValueError, match="has 1 different layouts among the first 8 seeds"):
        world(seeds=2)
    assert world(arguments={"agent_start_pos": [2, 2]}).shortest_episode([[0]]).tolist() == [3]
    assert world(arguments={"max_episode_steps": 5}).max_episode_steps == 5
    settings = {"agent_view_size": "setting view", "size": "JSON", "max_steps": "more than 100,000"}
    for (name, sentence), value in zip(settings.items(), (3, {1}, 10**9), strict=True):
        with pytest.raises(ValueError, match=sentence):
            world(arguments={name: value})
    for arguments, env_id in (({"members": [EMPTY]}, "MiniGrid-Mixture-v0"), ({"sise": 6}, EMPTY)):
        with pytest.raises(ValueError, match=r"Mixture is not one MiniGridEnv|cannot be made"):
            world(env_id, arguments=arguments)


def test_tables_are_kept_and_made_again_if_damaged_alike_in_processes(folder, monkeypatch):
    def load(workers: str = "1"):
        load_family.cache_clear()
        monkeypatch.setenv("MINIGRID_WORKERS", workers)
        return world(EMPTY, [0, 1, 2])._table

    with pytest.raises(ValueError, match="MINIGRID_WORKERS must be an integer from 1 to"):
        load("two")
    first, files = load("all"), sorted(folder.iterdir())
    assert len(files) == 3 and {file.suffix for file in files} == {".npz"}
    times = [file.stat().st_mtime_ns for file in files]
    content = files[1].read_bytes()
    files[1].write_bytes(content[:1000] + bytes([content[1000] ^ 1]) + content[1001:])
    files[2].write_bytes(b"")
    again = load()
    for name, array in vars(first).items():
        np.testing.assert_array_equal(array, getattr(again, name))
    changed = [file.stat().st_mtime_ns > time for file, time in zip(files, times, strict=True)]
    assert changed == [False, True, True]
    for package, count in ((minigrid, 6), (gymnasium, 9)):
        monkeypatch.setattr(package, "__version__", "0.0.0")
        load()
        assert len(list(folder.iterdir())) == count


def test_a_table_that_cannot_be_kept_is_a_warning(folder):
    folder.write_text("no folder")
    with pytest.warns(UserWarning, match="is not kept"):
        assert world().max_episode_steps == 100
    assert os.listdir(folder.parent) == ["tables"]
