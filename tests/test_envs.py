"""The worlds: their contract with Gymnasium, their rules, and the facts about their tasks."""

import gymnasium
import numpy as np
import pytest
from gymnasium.error import InvalidAction, ResetNeeded
from gymnasium.utils.env_checker import check_env

import envs
from envs.changes import Changes
from envs.rng import derive_key
from envs.world_check import world_problems

STAY, UP, DOWN, LEFT, RIGHT = range(5)
WORLDS = sorted(envs.REGISTRY)
TABULAR = [env_id for env_id in WORLDS if envs.make_base(env_id).observation_factors]


def batch(num_envs: int | None = None, **kwargs):
    return envs.make_base("DarkRoom-v0", num_envs=num_envs, **kwargs)


@pytest.mark.parametrize("env_id", WORLDS)
@pytest.mark.parametrize("render_mode", [None, "rgb_array"])
@pytest.mark.filterwarnings("error")
def test_gymnasiums_environment_checker_warns_of_nothing(env_id, render_mode):
    check_env(gymnasium.make(env_id, render_mode=render_mode).unwrapped)


VARIANTS = [
    *((env_id, {}) for env_id in WORLDS),
    ("DarkRoom-v0", {"size": 3, "start": "random", "reward": "once", "terminate": False}),
    ("KeyToDoor-v0", {"size": 3, "see_key": True}),
    ("FrozenLakeMaps-v0", {"is_slippery": False}),
    ("WaterMaze-v0", {"steering": "turn", "platform_radius": 0.4}),
    ("OddEvenBandit-v0", {"min_arms": 4, "arms": 20}),
]


def changes_of(world, tasks) -> Changes:
    """The tasks of `world` that follow each of `tasks`, with a change after every other episode."""
    keys = [derive_key(*task) for task in np.asarray(tasks).tolist()]
    return Changes(0.5, keys, [world.all_tasks()] * len(keys))


@pytest.mark.parametrize("change", [False, True], ids=["still", "changing"])
@pytest.mark.parametrize(("env_id", "kwargs"), VARIANTS, ids=str)
def test_every_world_keeps_its_contract(env_id, kwargs, change):
    def make_envs(tasks):
        changes = changes_of(world, tasks) if change else None
        return envs.make_vec(env_id, tasks, 7, changes=changes, **kwargs)

    world = envs.make_base(env_id, **kwargs)
    if change and world.action_mask(world.all_tasks()) is not None:
        pytest.skip("random actions are those of the first tasks")
    assert not [*world_problems(world, make_envs, 7)]
    observation, _ = make_envs(world.all_tasks()[:2]).reset(seed=0)
    assert observation.dtype == world.single_observation_space.dtype


@pytest.mark.parametrize("change", [False, True], ids=["still", "changing"])
@pytest.mark.parametrize(("env_id", "kwargs"), VARIANTS, ids=str)
def test_an_environment_steps_alike_after_its_state_is_restored(env_id, kwargs, change):
    world = envs.make_base(env_id, **kwargs)
    tasks = world.all_tasks()[-6:]
    kwargs = kwargs | ({"changes": changes_of(world, tasks)} if change else {})
    vec_env, copy = (envs.make_vec(env_id, tasks, 7, "SameStep", **kwargs) for _ in range(2))
    vec_env.reset(seed=5)
    rng = np.random.default_rng(0)
    mask = world.action_mask(world.all_tasks() if change else tasks)
    num_actions = vec_env.single_action_space.n if mask is None else mask.sum(1).min()
    for step in range(60):
        if step == 31:
            copy.restore(vec_env.state())
        actions = rng.integers(num_actions, size=6)
        one = vec_env.step(actions)
        if step >= 31:
            for mine, theirs in zip(one[:4], copy.step(actions)[:4], strict=True):
                for array, again in zip(arrays_of(mine), arrays_of(theirs), strict=True):
                    np.testing.assert_array_equal(array, again)


def arrays_of(value) -> list[np.ndarray]:
    """Return the arrays of an observation, a reward or a flag."""
    return list(value.values()) if isinstance(value, dict) else [value]


REFUSED = [  # the first setting is wrong
    *(("DarkRoom-v0", kwargs) for kwargs in ({"size": [9, 1]}, {"terminate": "no"}, {"sise": 3})),
    *(("DarkRoom-v0", kwargs) for kwargs in ({"reward": "twice"}, {"start": [0, 9]})),
    *(("DarkRoom-v0", {"tasks": tasks}) for tasks in ([[0, 9]], [[4, 4]], [[0.5, 1]], [])),
    ("DarkRoomPermuted-v0", {"tasks": [[0, 1, 2, 3, 3]]}),
    ("DarkRoomSequences-v0", {"size": 18}),
    *(("KeyToDoor-v0", kwargs) for kwargs in ({"door_pays": True}, {"tasks": [[1, 2, 1, 2]]})),
    *(("BernoulliBandit-v0", kwargs) for kwargs in ({"arms": 1}, {"num_tasks": True}, {"sd": 1})),
    ("GaussianBandit-v0", {"sd": float("nan")}),
    ("OddEvenBandit-v0", {"min_arms": 11}),
    ("RandomMDP-v0", {"num_actions": 2.0}),
    ("Garnet-v0", {"branching": 17}),
    ("GraphMDP-v0", {"family_seed": -1}),
    ("StructuredMDP-v0", {"num_states": 7}),
    ("FrozenLakeMaps-v0", {"size": 12}),
    *(("WaterMaze-v0", kwargs) for kwargs in ({"headings": 3}, {"platform_radius": 1.0})),
    *(("HiddenObject-v0", kwargs) for kwargs in ({"min_objects": 6}, {"view": 4})),
]
TASK_WORDS = "task|goal|key|door|kind"  # what a world calls its tasks


@pytest.mark.parametrize(("env_id", "kwargs"), REFUSED, ids=str)
def test_a_bad_setting_is_refused_by_its_name(env_id, kwargs):
    name = next(iter(kwargs))
    with pytest.raises(ValueError, match=TASK_WORDS if name == "tasks" else name):
        envs.make_base(env_id, **kwargs)


@pytest.mark.parametrize("env_id", TABULAR)
def test_the_product_of_the_factors_is_the_number_of_observations(env_id):
    world = envs.make_base(env_id)
    assert np.prod(world.observation_factors) == world.single_observation_space.n


def test_a_list_of_seeds_restarts_only_the_environments_that_have_one():
    vec_env, same = batch(2, start="random"), batch(2, start="random")
    for world in (vec_env, same):
        world.reset(seed=[3, 5])
    assert vec_env.reset(seed=[3, None])[0].tolist() == [
        batch(1, start="random").reset(seed=3)[0][0],
        same.reset()[0][1],
    ]


def test_a_masked_reset_leaves_the_other_environments_as_they_are():
    vec_env = batch(3, start="random")
    first, _ = vec_env.reset(seed=1)
    again, _ = vec_env.reset(options={"reset_mask": np.array([False, True, False])})
    assert again[[0, 2]].tolist() == first[[0, 2]].tolist() and again[1] != first[1]


def test_writing_into_a_returned_observation_changes_no_state():
    vec_env = batch(2)
    observation, _ = vec_env.reset()
    observation[:] = 0
    assert vec_env.step([STAY, STAY])[0].tolist() == [40, 40]


@pytest.mark.parametrize(
    ("mask", "error"), [(np.array([1, 0, 1]), TypeError), (np.zeros(3, bool), ValueError)]
)
def test_a_bad_reset_mask_is_refused(mask, error):
    vec_env = batch(3)
    vec_env.reset()
    with pytest.raises(error, match="reset_mask"):
        vec_env.reset(options={"reset_mask": mask})


def test_the_first_reset_must_be_of_all_environments():
    with pytest.raises(ResetNeeded):
        batch(2).reset(options={"reset_mask": np.array([True, False])})


@pytest.mark.parametrize("seed", [[1], [1, 2, 3, 4]])
def test_the_wrong_number_of_seeds_is_refused(seed):
    with pytest.raises(ValueError, match="expected 3 seeds"):
        batch(3).reset(seed=seed)


@pytest.mark.parametrize(
    "actions",
    [1, [1], [1, 1, 1], [[1, 1]], np.array([1.0, 2.0]), np.array([True, False]), {}, [1, [1]]],
    ids=repr,
)
def test_actions_of_another_shape_or_type_are_refused(actions):
    vec_env = batch(2)
    vec_env.reset()
    with pytest.raises(InvalidAction):
        vec_env.step(actions)


@pytest.mark.parametrize("dtype", ["int8", "uint8", "int16", "uint32", "int64", "uint64"])
def test_integers_of_any_width_are_actions(dtype):
    vec_env = batch(2)
    vec_env.reset()
    assert vec_env.step(np.array([UP, DOWN], dtype))[0].tolist() == [31, 49]


def test_the_optimal_policy_shares_between_row_and_column_and_stays_on_the_goal():
    world = envs.make_base("DarkRoom-v0", size=3)
    policy = world.optimal_policy([[0, 0], [0, 1], [1, 2]])
    assert policy.shape == (3, 9, 5) and (policy.sum(-1) == 1).all()
    assert policy[0, 4].tolist() == [0, 0.5, 0, 0.5, 0]  # to the corner: up or left
    assert policy[[1, 2, 0], [4, 4, 0]].argmax(-1).tolist() == [UP, RIGHT, STAY]
    assert (policy[[1, 2, 0], [4, 4, 0]].max(-1) == 1).all()


def test_a_dark_room_tells_which_returns_are_successes_and_where_its_tasks_are():
    world = envs.make_base("DarkRoom-v0", size=3, terminate=False)
    assert world.success(np.array([[0.0, 1.0], [3.0, 0.0]])).tolist() == [
        [False, True],
        [True, False],
    ]
    assert (world.task_grid, world.task_noun, world.success_ends) == ((3, 3), "goal", False)
    frames = world.frames((0, 1), {"observation": np.array([4]), "next_observation": np.array([1])})
    assert frames.shape == (2, 96, 96, 3) and frames.dtype == np.uint8


def test_an_unknown_world_is_refused_with_the_nearest_name():
    for maker in (envs.make_base, envs.make, lambda name: envs.make_vec(name, [[0, 0]])):
        with pytest.raises(ValueError, match="did you mean DarkRoom-v0"):
            maker("DarkRom-v0")


def test_a_single_environment_refuses_an_unknown_setting():
    with pytest.raises(ValueError, match="did you mean goal"):
        envs.make("DarkRoom-v0", gaol=(1, 1))
