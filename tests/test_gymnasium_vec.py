"""Vector environments of Gymnasium ids: interface, checks, and equal transitions in any batch."""

import gymnasium
import numpy as np
import pytest
from gymnasium.error import InvalidAction
from gymnasium.spaces import Discrete
from gymnasium.vector import AutoresetMode
from trajectories import batch_trajectories

import envs
from ad import pipeline
from ad.runtime.run import Run
from envs.gymnasium_vec import GymnasiumVectorEnv

MODES = [mode.value for mode in AutoresetMode]
ICE = [{"is_slippery": True}, {"is_slippery": False}]  # two tasks of a lake or of a cliff


@pytest.mark.parametrize("mode", MODES[1:])
def test_random_transitions_are_the_same_in_every_autoreset_mode(mode):
    actions = np.random.default_rng(0).integers(4, size=(3, 80))
    trajectories = [
        batch_trajectories(
            envs.make_vec("FrozenLake-v1", [[0], [1], [0]], 7, m, ICE), actions, seed=5
        )
        for m in (MODES[0], mode)
    ]
    assert trajectories[0] == trajectories[1]


def test_environments_in_processes_have_the_same_transitions():
    actions = np.random.default_rng(2).integers(4, size=(2, 20))
    make = [
        envs.make_vec("FrozenLake-v1", [[0], [1]], 9, "NextStep", ICE, asynchronous=asynchronous)
        for asynchronous in (False, True)
    ]
    trajectories = [batch_trajectories(vec_env, actions, 5) for vec_env in make]
    make[1].close()
    assert trajectories[0] == trajectories[1]


def test_the_time_limit_of_the_id_stays_in_force():
    vec_env = envs.make_vec("FrozenLake-v1", [[0]], 50, max_episode_steps=2)
    vec_env.reset(seed=0)
    vec_env.step([0])
    _, _, terminated, truncated, info = vec_env.step([0])
    assert truncated.tolist() == [True] and not terminated.any() and info["time"].tolist() == [0]


def test_unknown_facts_are_none():
    world = envs.make_base("FrozenLake-v1", ICE)
    tasks = world.all_tasks()
    assert tasks.tolist() == [[0], [1]] and world.observation_factors is None
    facts = (world.optimal_return(tasks, 20), world.random_return(tasks, 20))
    assert [*facts, world.shortest_episode(tasks), world.optimal_policy(tasks)] == [None] * 4
    assert world.references(tasks, 20, 10) == {}


def test_a_success_is_a_return_at_the_reward_threshold_of_the_id():
    returns = np.array([[0.0, 1.0]])
    for env_id in ("FrozenLake-v1", "gymnasium.envs.toy_text:FrozenLake-v1"):
        assert envs.make_base(env_id).success(returns).tolist() == [[False, True]]
    returns = np.array([1.0, 474.5, 475.0, 500.0])
    found = envs.make_base("CartPole-v1").success(returns)
    assert found.tolist() == [False, False, True, True]
    assert envs.make_base("CliffWalking-v1").success(returns) is None


@pytest.mark.parametrize("actions", [[0.0, 1.0], [0, 4], [0, -1], [0], [True, False], None])
def test_a_value_that_is_not_an_action_is_refused(actions):
    vec_env = envs.make_vec("FrozenLake-v1", [[0], [1]], task_kwargs=ICE)
    vec_env.reset(seed=0)
    with pytest.raises(InvalidAction):
        vec_env.step(actions)


@pytest.mark.parametrize(
    ("env_id", "task_kwargs", "kwargs", "sentence"),
    [
        ("MountainCarContinuous-v0", None, {}, "the action space must be Discrete from 0"),
        ("FrozenLake-v1", [{"slip": 1}], {}, "FrozenLake-v1 cannot be made for these tasks"),
        ("FrozenLake-v1", [], {}, "task_kwargs must be a list of dicts"),
        ("FrozenLake-v1", ["8x8"], {}, "task_kwargs must be a list of dicts"),
        ("FrozenLake-v1", ICE, {"tasks": [[2]]}, r"tasks go from \[0\] to \[1\]"),
        ("FrozenLake-v1", ICE, {"tasks": [0, 1]}, "tasks must be a list of lists of 1 integers"),
        (
            "FrozenLake-v1",
            [{"map_name": "4x4"}, {"map_name": "8x8"}],
            {"tasks": [[0], [1]]},
            "cannot be made for these tasks",
        ),
        (
            "FrozenLaek-v1",
            None,
            {},
            "unknown environment 'FrozenLaek-v1'; did you mean FrozenLake",
        ),
        ("no_such_module:Lake-v0", None, {}, "unknown environment 'no_such_module:Lake-v0'"),
    ],
)
def test_bad_arguments_and_spaces_are_refused_in_a_sentence(env_id, task_kwargs, kwargs, sentence):
    with pytest.raises(ValueError, match=sentence):
        _ = envs.make_base(env_id, task_kwargs, **kwargs).single_observation_space


class Counter(gymnasium.Env):
    """An environment of any number of observations and actions; it is never stepped."""

    def __init__(self, observations: int, actions: int):
        self.observation_space, self.action_space = Discrete(observations), Discrete(actions)


@pytest.fixture
def counter():
    """The id of an environment whose spaces have the sizes that its arguments say."""
    gymnasium.register("Counter-v0", Counter, disable_env_checker=True)
    yield "Counter-v0"
    del gymnasium.registry["Counter-v0"]


def test_an_id_may_name_the_module_that_registers_it():
    env_id = "gymnasium.envs.toy_text:FrozenLake-v1"
    assert isinstance(envs.make_base(env_id), GymnasiumVectorEnv)
    assert isinstance(envs.make(env_id), gymnasium.Env)


class Guess(gymnasium.Env):
    """A one-step environment that rewards the action `answer`; it counts those made and reset."""

    observation_space, action_space = Discrete(2), Discrete(2)
    num_made = num_reset = 0

    def __init__(self, answer: int):
        self.answer, self.is_reset = answer, False
        Guess.num_made += 1

    def reset(self, *, seed=None, options=None):
        Guess.num_reset += not self.is_reset
        self.is_reset = True
        return 0, {}

    def step(self, action):
        return 1, float(action == self.answer), True, False, {}


def test_a_run_makes_an_environment_of_each_task_once_besides_those_that_it_steps(smoke, tmp_path):
    gymnasium.register("Guess-v0", Guess, disable_env_checker=True)
    settings = {
        "env.id": "Guess-v0",
        "env.kwargs": "{}",
        "env.tasks": str([{"answer": task % 2} for task in range(100)]),
        "split.num_train_tasks": "20",
        "source.env_steps": "80",
        "data.context_length": "8",
        "data.history_stride": "1",
        "training.steps": "4",
        "training.warmup_steps": "1",
        "training.eval_every": "2",
        "evaluation.episodes": "4",
        "record.source_videos": "false",
    }
    try:
        config = smoke(tmp_path, *(w for path, v in settings.items() for w in (f"--{path}", v)))
        pipeline.run_all([Run.open(config)])
    finally:
        del gymnasium.registry["Guess-v0"]
    assert Guess.num_reset > 0
    assert Guess.num_made - Guess.num_reset == 100 + 1  # the check and the run's base environment
