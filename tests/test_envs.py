"""The worlds: their contract with Gymnasium, their rules, and the facts about their tasks."""

import gymnasium
import numpy as np
import pytest
from gymnasium.error import InvalidAction, ResetNeeded
from gymnasium.utils.env_checker import check_env

import envs

STAY, UP, DOWN, LEFT, RIGHT = range(5)
WORLDS = sorted(envs.REGISTRY)
TABULAR = [env_id for env_id in WORLDS if envs.make_base(env_id).observation_factors]
OPEN_ENDED = ("KeyToDoor-v0", "FrozenLakeMaps-v0")  # start on any cell, have no shortest episode
ENDING = [
    env_id for env_id in TABULAR if envs.make_base(env_id).success_ends and env_id not in OPEN_ENDED
]
NOT_ACTIONS = [2.0, 1.5, float("nan"), "1", True, np.True_, None, -1, 5, 2**70, [1], np.array([1])]


def batch(num_envs: int | None = None, **kwargs):
    return envs.make_base("DarkRoom-v0", num_envs=num_envs, **kwargs)


@pytest.mark.parametrize("env_id", WORLDS)
@pytest.mark.parametrize("render_mode", [None, "rgb_array", "ansi"])
@pytest.mark.filterwarnings("error")
def test_gymnasiums_environment_checker_warns_of_nothing(env_id, render_mode):
    check_env(gymnasium.make(env_id, render_mode=render_mode).unwrapped)


@pytest.mark.parametrize("env_id", WORLDS)
@pytest.mark.filterwarnings("error")
def test_gymnasiums_make_vec_repeats_the_tasks(env_id):
    tasks = envs.make_base(env_id).all_tasks()
    vec_env = gymnasium.make_vec(env_id, num_envs=len(tasks) + 1)
    np.testing.assert_array_equal(vec_env.unwrapped.tasks, [*tasks, tasks[0]])


@pytest.mark.parametrize("env_id", WORLDS)
def test_everything_that_a_batch_returns_has_its_declared_dtype(env_id):
    vec_env = envs.make_vec(env_id, envs.make_base(env_id).all_tasks()[:4])
    observation, _ = vec_env.reset(seed=0)
    stepped, reward, terminated, truncated, info = vec_env.step(np.full(4, UP))
    arrays = [reward, terminated, truncated, info["time"]]
    assert [array.dtype.str[1:] for array in arrays] == ["f4", "b1", "b1", "i8"]
    assert all(array.shape == (4,) for array in arrays)
    assert observation.dtype == stepped.dtype == vec_env.single_observation_space.dtype
    assert observation in vec_env.observation_space and stepped in vec_env.observation_space


VARIANTS = [
    *((env_id, {}) for env_id in WORLDS),
    ("DarkRoom-v0", {"size": 3, "start": "random", "reward": "once", "terminate": False}),
    ("KeyToDoor-v0", {"size": 3, "see_key": True}),
    ("FrozenLakeMaps-v0", {"is_slippery": False}),
    ("WaterMaze-v0", {"steering": "turn", "platform_radius": 0.4}),
    ("OddEvenBandit-v0", {"min_arms": 4, "arms": 20}),
]


@pytest.mark.parametrize(("env_id", "kwargs"), VARIANTS, ids=str)
def test_an_environment_steps_alike_alone_in_a_batch_and_after_its_state_is_restored(
    env_id, kwargs
):
    tasks = envs.make_base(env_id, **kwargs).all_tasks()[-6:]
    together, copy = (envs.make_vec(env_id, tasks, 7, "SameStep", **kwargs) for _ in range(2))
    alone = envs.make_vec(env_id, tasks[4:5], 7, "SameStep", **kwargs)
    together.reset(seed=5), alone.reset(seed=9)
    rng = np.random.default_rng(0)
    mask = together.unwrapped.action_mask(tasks)
    num_actions = together.single_action_space.n if mask is None else mask.sum(1).min()
    for step in range(60):
        if step == 31:
            copy.restore(together.state())
        actions = rng.integers(num_actions, size=6)
        one, other = together.step(actions), alone.step(actions[4:5])
        for mine, theirs in zip(map(arrays_of, one[:4]), map(arrays_of, other[:4]), strict=True):
            for array, lonely in zip(mine, theirs, strict=True):
                np.testing.assert_array_equal(array[4:5], lonely)
        if step >= 31:
            for mine, theirs in zip(one[:4], copy.step(actions)[:4], strict=True):
                for array, again in zip(arrays_of(mine), arrays_of(theirs), strict=True):
                    np.testing.assert_array_equal(array, again)


def arrays_of(value) -> list[np.ndarray]:
    """Return the arrays of an observation, a reward or a flag."""
    return list(value.values()) if isinstance(value, dict) else [value]


REFUSED = {  # the first setting is wrong
    "DarkRoom-v0": [
        *({"size": 0}, {"size": True}, {"size": [9]}, {"size": [9, 1]}, {"terminate": "no"}),
        *({"goal_on_start": 1}, {"reward": "twice"}, {"start": "middle"}, {"start": [0, 9]}),
        *({"tasks": [[0, 9]]}, {"tasks": [[4, 4]]}, {"tasks": [[0.5, 1]]}, {"tasks": []}),
        *({"num_envs": 2, "tasks": [[0, 0]]}, {"render_mode": "human"}, {"sise": 3}),
    ],
    "DarkRoomPermuted-v0": [{"size": 1}, {"tasks": [[0, 1, 2, 3, 3]]}, {"start": "center"}],
    "DarkRoomSequences-v0": [{"size": 18}, {"goal_on_start": 1}, {"tasks": [[4, 4]]}],
    "KeyToDoor-v0": [
        *({"size": 1}, {"start": "middle"}, {"door_pays": True}, {"see_key": 1}),
        *({"tasks": [[0, 0, 0, 9]]}, {"tasks": [[1, 2, 1, 2]]}, {"tasks": [[1, 2]]}),
    ],
    "BernoulliBandit-v0": [{"arms": 1}, {"num_tasks": True}, {"family_seed": -1}, {"sd": 1}],
    "GaussianBandit-v0": [{"sd": 0}, {"sd": float("nan")}, {"tasks": [[1000]]}],
    "OddEvenBandit-v0": [
        *({"min_arms": 11}, {"num_held_out": 0}, {"parity_probability": 1.5}),
        {"tasks": [[2, 0]]},
    ],
    "RandomMDP-v0": [{"num_states": 1}, {"num_actions": 2.0}, {"reward_noise": float("nan")}],
    "Garnet-v0": [{"branching": 17}, {"reward_noise": -1}, {"tasks": [[0, 1]]}],
    "GraphMDP-v0": [{"num_tasks": 0}, {"reward_noise": 0.1}, {"family_seed": -1}],
    "StructuredMDP-v0": [{"num_states": 7}, {"branching": 7}, {"goal_probability": 2}],
    "FrozenLakeMaps-v0": [
        *({"size": 12}, {"p": 0}, {"is_slippery": 1}, {"num_tasks": 0}, {"tasks": [[300]]}),
    ],
    "WaterMaze-v0": [
        *({"stroke": 0.3}, {"platform_radius": 1.0}, {"headings": 3}, {"steering": "left"}),
        *({"start": "random"}, {"num_tasks": 1}, {"tasks": [[200]]}),
    ],
    "HiddenObject-v0": [
        *({"size": 8}, {"min_objects": 6}, {"view": 4}, {"observation": "full"}),
        {"tasks": [[3, 0]]},
    ],
}
TASK_WORDS = "task|goal|key|door|kind"  # what a world calls its tasks


@pytest.mark.parametrize(
    ("env_id", "kwargs"),
    [(env_id, kwargs) for env_id, several in REFUSED.items() for kwargs in several],
    ids=str,
)
def test_a_bad_setting_is_refused_by_its_name(env_id, kwargs):
    name = next(iter(kwargs))
    with pytest.raises(ValueError, match=TASK_WORDS if name == "tasks" else name):
        envs.make_base(env_id, **kwargs)


def test_every_world_has_a_setting_that_is_refused():
    assert set(REFUSED) == set(WORLDS)


@pytest.mark.parametrize("env_id", TABULAR)
def test_the_product_of_the_factors_is_the_number_of_observations(env_id):
    world = envs.make_base(env_id)
    assert np.prod(world.observation_factors) == world.single_observation_space.n


@pytest.mark.parametrize("env_id", WORLDS)
def test_actions_have_names_or_none(env_id):
    world = envs.make_base(env_id)
    assert len(world.action_names) in (0, world.single_action_space.n)


@pytest.mark.parametrize("env_id", ENDING)
def test_following_the_optimal_policy_takes_the_shortest_episode(env_id):
    world = envs.make_base(env_id)
    tasks = world.all_tasks()
    vec_env = envs.make_vec(env_id, tasks, autoreset_mode="Disabled")
    observation, info = vec_env.reset(seed=0)
    length, rng = np.full(len(tasks), -1), np.random.default_rng(0)
    policy, env = world.optimal_policy(tasks), np.arange(len(tasks))
    for _ in range(20):
        actions = [rng.choice(p.size, p=p) for p in policy[env, observation]]
        observation, _, terminated, truncated, info = vec_env.step(actions)
        ended = terminated | truncated
        length = np.where(ended & (length < 0), info["time"], length)
        if ended.any():
            observation, _ = vec_env.reset(options={"reset_mask": ended})
    np.testing.assert_array_equal(length, world.shortest_episode(tasks))


def test_random_starts_are_uniform_over_all_cells_but_the_goal():
    vec_env = batch(tasks=[[0, 1]] * 8000, size=3, start="random")
    count = np.bincount(vec_env.reset(seed=0)[0], minlength=9)
    assert count[1] == 0
    others = np.delete(count, 1)  # mean 1000, standard deviation 30
    assert others.min() > 880 and others.max() < 1120


def test_a_list_of_seeds_restarts_only_the_environments_that_have_one():
    vec_env, same = batch(2, start="random"), batch(2, start="random")
    for world in (vec_env, same):
        world.reset(seed=[3, 5])
    assert vec_env.reset(seed=[3, None])[0].tolist() == [
        batch(1, start="random").reset(seed=3)[0][0],
        same.reset()[0][1],
    ]


def test_an_environment_that_is_not_active_stays_as_it_is_with_reward_0():
    vec_env = batch(2, tasks=[[0, 1]] * 2, size=3, terminate=False)
    vec_env.reset()
    vec_env.step([UP, UP])
    observation, reward, *_ = vec_env.step([STAY, DOWN], active=np.array([True, False]))
    assert observation.tolist() == [1, 1] and reward.tolist() == [1, 0]


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
    ("mask", "error"),
    [
        ([True, False, True], TypeError),
        (np.array([1, 0, 1]), TypeError),
        (np.array([True]), ValueError),
        (np.zeros(3, bool), ValueError),
    ],
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


def test_step_and_render_before_the_first_reset_are_refused():
    with pytest.raises(ResetNeeded):
        batch(1).step([STAY])
    with pytest.raises(ResetNeeded):
        batch(1, render_mode="ansi").render()


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


def test_successors_are_the_observations_after_a_step():
    world = envs.make_base("DarkRoom-v0", tasks=[[0, 0]] * 80, size=4, start="random")
    before, _ = world.reset(seed=0)
    actions = np.arange(80) % 5
    np.testing.assert_array_equal(
        world.step(actions)[0], world.successors()[before, actions], strict=True
    )


def test_an_unknown_world_is_refused_with_the_nearest_name():
    for maker in (envs.make_base, envs.make, lambda name: envs.make_vec(name, [[0, 0]])):
        with pytest.raises(ValueError, match="did you mean DarkRoom-v0"):
            maker("DarkRom-v0")


def test_a_single_environment_refuses_an_unknown_setting():
    with pytest.raises(ValueError, match="did you mean goal"):
        envs.make("DarkRoom-v0", gaol=(1, 1))
