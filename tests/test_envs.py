"""The worlds: their contract with Gymnasium, their rules, and the facts about their tasks."""

import gymnasium
import numpy as np
import pytest
from gymnasium.error import InvalidAction, ResetNeeded
from gymnasium.utils.env_checker import check_env
from trajectories import batch_trajectories

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


@pytest.mark.parametrize("env_id", TABULAR)
def test_the_product_of_the_factors_is_the_number_of_observations(env_id):
    world = envs.make_base(env_id)
    assert np.prod(world.observation_factors) == world.single_observation_space.n


@pytest.mark.parametrize("env_id", WORLDS)
def test_actions_have_names_or_none(env_id):
    world = envs.make_base(env_id)
    assert len(world.action_names) in (0, world.single_action_space.n)


def test_the_names_of_moves_say_where_they_lead():
    room = batch(1, size=5)
    assert room.action_names == ("stay", "up", "down", "left", "right")
    assert [room.action_names[move] for move in (UP, DOWN, LEFT)] == ["up", "down", "left"]
    lakes = envs.make_base("FrozenLakeMaps-v0", num_envs=4, is_slippery=False)
    lakes.reset(seed=0)
    reached = dict(zip(lakes.action_names, lakes.step(range(4))[0].tolist(), strict=True))
    assert reached == {"left": 0, "down": 4, "right": 1, "up": 0}


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


def test_a_made_environment_can_be_made_again_from_its_spec():
    env = envs.make("DarkRoom-v0", size=3, goal=(0, 0), episode_length=2)
    again = env.spec.make()
    assert again.observation_space.n == 9 and again.get_wrapper_attr("episode_length") == 2


def test_each_action_moves_one_cell_and_walls_stop_it():
    vec_env = batch(5, tasks=[[0, 0]] * 5, size=3)
    assert vec_env.reset()[0].tolist() == [4, 4, 4, 4, 4]
    moves = np.array([STAY, UP, DOWN, LEFT, RIGHT])
    assert vec_env.step(moves)[0].tolist() == [4, 1, 7, 3, 5]
    assert vec_env.step(moves)[0].tolist() == [4, 1, 7, 3, 5]


def test_arriving_on_the_goal_ends_the_episode_with_a_reward_of_one():
    env = envs.make("DarkRoom-v0", size=3, goal=(0, 1))
    env.reset()
    assert env.step(UP) == (1, 1.0, True, False, {"time": 1})


def test_a_dense_room_rewards_every_step_on_the_goal_staying_too():
    env = envs.make("DarkRoom-v0", size=3, goal=(0, 1), terminate=False)
    env.reset()
    steps = [env.step(action) for action in (UP, STAY, UP, DOWN)]
    assert [reward for _, reward, *_ in steps] == [1.0, 1.0, 1.0, 0.0]
    assert not any(terminated for _, _, terminated, *_ in steps)


def test_random_starts_are_uniform_over_all_cells_but_the_goal():
    vec_env = batch(tasks=[[0, 1]] * 8000, size=3, start="random")
    count = np.bincount(vec_env.reset(seed=0)[0], minlength=9)
    assert count[1] == 0
    others = np.delete(count, 1)  # mean 1000, standard deviation 30
    assert others.min() > 880 and others.max() < 1120


def test_an_environment_has_the_same_starts_alone_as_in_a_batch():
    together = batch(6, size=4, start="random")
    starts = [together.reset(seed=7)[0]] + [together.reset()[0] for _ in range(5)]
    alone = batch(tasks=together.tasks[4:5], size=4, start="random")
    lonely = [alone.reset(seed=11)[0]] + [alone.reset()[0] for _ in range(5)]
    assert [start[4] for start in starts] == [start[0] for start in lonely]


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


def test_two_unseeded_batches_start_differently():
    starts = [batch(50, start="random").reset()[0].tolist() for _ in range(2)]
    assert starts[0] != starts[1]


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


def test_all_tasks_are_all_cells_but_the_center_row_by_row():
    tasks = envs.make_base("DarkRoom-v0", size=3).all_tasks().tolist()
    assert tasks == [[0, 0], [0, 1], [0, 2], [1, 0], [1, 2], [2, 0], [2, 1], [2, 2]]


def test_the_shortest_episode_is_the_manhattan_distance():
    world = envs.make_base("DarkRoom-v0")
    assert world.shortest_episode([[0, 0], [4, 5], [8, 3]]).tolist() == [8, 1, 5]
    assert world.shortest_episode(world.all_tasks()).mean() == 4.5


def test_the_optimal_return_depends_on_the_reward_and_the_distance():
    ends = envs.make_base("DarkRoom-v0")
    assert ends.optimal_return([[0, 0], [4, 5]], 7).tolist() == [0, 1]
    assert ends.optimal_return([[0, 0]], None).tolist() == [1]
    dense = envs.make_base("DarkRoom-v0", terminate=False)
    assert dense.optimal_return([[0, 0], [4, 5]], 7).tolist() == [0, 7]
    assert dense.optimal_return(dense.all_tasks(), 20).mean() == 16.5


def test_facts_with_random_starts_are_means_over_the_other_cells():
    world = envs.make_base("DarkRoom-v0", size=2, start="random", terminate=False)
    assert world.start_observations().tolist() == [0, 1, 2, 3]
    assert world.shortest_episode([[0, 0]]).tolist() == [pytest.approx(4 / 3)]
    assert world.optimal_return([[0, 0]], 1).tolist() == [pytest.approx(2 / 3)]


def test_the_optimal_policy_shares_between_row_and_column_and_stays_on_the_goal():
    world = envs.make_base("DarkRoom-v0", size=3)
    policy = world.optimal_policy([[0, 0], [0, 1], [1, 2]])
    assert policy.shape == (3, 9, 5) and (policy.sum(-1) == 1).all()
    assert policy[0, 4].tolist() == [0, 0.5, 0, 0.5, 0]  # to the corner: up or left
    assert policy[[1, 2, 0], [4, 4, 0]].argmax(-1).tolist() == [UP, RIGHT, STAY]
    assert (policy[[1, 2, 0], [4, 4, 0]].max(-1) == 1).all()


@pytest.mark.parametrize("terminate", [True, False])
@pytest.mark.parametrize("start", ["center", "random"])
def test_the_goals_that_are_possible_are_those_that_would_have_given_the_same_rewards(
    terminate, start
):
    settings = {"size": 3, "start": start, "terminate": terminate}
    names = ("time", "observation", "action", "reward", "next_observation", "terminated")
    tasks = envs.make_base("DarkRoom-v0", size=3).all_tasks()
    actions = np.random.default_rng(0).integers(5, size=(8, 25))
    vec_env = envs.make_vec("DarkRoom-v0", tasks, 6, **settings)
    for k, steps in enumerate(batch_trajectories(vec_env, actions, 3)):
        for stop in range(len(steps) + 1):
            seen = {n: np.array([step[i] for step in steps[:stop]]) for i, n in enumerate(names)}
            goals = tasks @ [3, 1]
            on_goal = seen["next_observation"] == goals[:, None]  # [K, T]
            begins = (seen["time"] == 0) & (seen["observation"] == goals[:, None])
            expected = (on_goal == seen["reward"]).all(1) & ~begins.any(1)
            found = vec_env.unwrapped.possible(seen, tasks).all(0)
            np.testing.assert_array_equal(found, expected)
            assert found[k] and (found.sum() == 1 or not seen["reward"].any())


def test_an_episode_that_continues_or_begins_on_a_cell_excludes_it_as_the_goal():
    step = {"observation": [4], "action": [LEFT], "next_observation": [3]}
    step |= {"reward": [0.0], "terminated": [False]}
    for kwargs, time, possible in (
        ({}, 2, False),
        ({"terminate": False}, 2, True),
        ({"terminate": False}, 0, False),
    ):
        world = envs.make_base("DarkRoom-v0", size=3, start="random", **kwargs)
        seen = {name: np.array(values) for name, values in (step | {"time": [time]}).items()}
        assert world.possible(seen, [[1, 1], [1, 0], [0, 0]]).tolist() == [[possible, False, True]]


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


@pytest.mark.parametrize(
    ("kwargs", "sentence"),
    [
        ({"size": 0}, "size must be an integer from 2 to 181, got 0"),
        ({"size": 9.0}, "size must be an integer"),
        ({"size": True}, "size must be an integer"),
        ({"size": [9]}, r"size must be an integer or \[rows, columns\], got \[9\]"),
        ({"size": (9, 9, 9)}, r"size must be an integer or \[rows, columns\], got \[9, 9, 9\]"),
        ({"size": [9, 1]}, "size must be an integer from 2 to 181, got 1"),
        ({"terminate": "no"}, "terminate must be true or false, got 'no'"),
        ({"goal_on_start": 1}, "goal_on_start must be true or false, got 1"),
        ({"reward": "twice"}, "reward must be every_step or once, got 'twice'"),
        ({"start": "middle"}, r"start must be center, corner, random or the \[row, column\]"),
        ({"start": [0, 9]}, "a cell of the room, got"),
        ({"start": [0, True]}, "a cell of the room, got"),
        ({"start": [0]}, "a cell of the room, got"),
        ({"start": 3}, "a cell of the room, got 3"),
        ({"start": "corner", "tasks": [[0, 0]]}, r"goal \(0, 0\) is where episodes start"),
        ({"tasks": [[0, 9]]}, r"goal \(0, 9\) is outside the 9 x 9 room"),
        ({"tasks": [[4, 4]]}, r"goal \(4, 4\) is where episodes start"),
        ({"tasks": [[0.5, 1]]}, "tasks must be a list of lists of 2 integers"),
        ({"tasks": [[0, True]]}, "tasks must be a list of lists of 2 integers"),
        ({"tasks": [[0]]}, "tasks must be a list of lists of 2 integers"),
        ({"tasks": []}, "tasks must be a list of lists of 2 integers"),
        ({"tasks": [[0, 0]], "num_envs": 2}, "num_envs is 2, but the number of tasks is 1"),
        ({"render_mode": "human"}, "render_mode 'human' is unknown"),
        ({"sise": 3}, "DarkRoom-v0 has no setting 'sise'; did you mean size?"),
        ({"task_kwargs": [{}]}, "a list of tasks is for Gymnasium's environments"),
    ],
)
def test_a_bad_setting_is_refused_in_a_sentence(kwargs, sentence):
    with pytest.raises(ValueError, match=sentence):
        envs.make_base("DarkRoom-v0", **kwargs)


def test_an_unknown_world_is_refused_with_the_nearest_name():
    for maker in (envs.make_base, envs.make, lambda name: envs.make_vec(name, [[0, 0]])):
        with pytest.raises(ValueError, match="did you mean DarkRoom-v0"):
            maker("DarkRom-v0")


def test_a_single_environment_refuses_an_unknown_setting():
    with pytest.raises(ValueError, match="did you mean goal"):
        envs.make("DarkRoom-v0", gaol=(1, 1))
