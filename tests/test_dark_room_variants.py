"""Dark rooms with other starts, rewards and ends: their facts against every walk."""

import itertools

import numpy as np
import pytest
from trajectories import ScalarRoom, batch_trajectories

import envs

STAY, UP, DOWN, LEFT, RIGHT = range(5)
STEPS = 3  # of an episode in the rooms below: 125 walks
WALKS = list(itertools.product(range(5), repeat=STEPS))
FIELDS = ("time", "observation", "action", "reward", "next_observation", "terminated")
VARIANTS = [
    {"start": start, "goal_on_start": on_start, "reward": reward, "terminate": terminate}
    for start in ("center", "corner", "random", [1, 0])
    for on_start in (False, True)
    for reward in ("every_step", "once")
    for terminate in (False, True)
]


def rewards_of(variant: dict, goal, start: int, walk, size: int = 3) -> list[float]:
    """The rewards of one episode, by the scalar rules."""
    variant = variant | {"start": divmod(start, size), "goal_on_start": True}
    scalar, rewards = ScalarRoom(size, goal, **variant, episode_length=len(walk), seed=0), []
    scalar.reset()
    for action in walk:
        _, reward, terminated, _ = scalar.step(action)
        rewards.append(reward)
        if terminated:
            break
    return rewards


def every_walk(variant: dict, goal, value) -> np.ndarray:
    """`value(rewards)` of every walk from every start, [starts, walks]."""
    starts = {"center": [4], "corner": [0], "random": range(9)}
    starts = starts[variant["start"]] if isinstance(variant["start"], str) else [3]
    allowed = [s for s in starts if variant["goal_on_start"] or s != goal[0] * 3 + goal[1]]
    return np.array(
        [[value(rewards_of(variant, goal, start, walk)) for walk in WALKS] for start in allowed]
    )


def first_reward(rewards: list[float]) -> float:
    return rewards.index(1.0) + 1 if 1.0 in rewards else np.inf


@pytest.mark.parametrize("variant", VARIANTS, ids=str)
def test_the_facts_about_a_variant_are_those_of_all_its_walks(variant):
    world = envs.make_base("DarkRoom-v0", size=3, **variant)
    tasks = world.all_tasks()[::3]
    best, random = world.optimal_return(tasks, STEPS), world.random_return(tasks, STEPS)
    shortest, lines = world.shortest_episode(tasks), world.references(tasks, STEPS, 2)
    assert (world.success_ends, world.start_observations()[0]) == (
        variant["terminate"],
        {"center": 4, "corner": 0, "random": 0}.get(str(variant["start"]), 3),
    )

    def learned(rewards):  # an agent that stays from the first reward on
        first = first_reward(rewards)
        return float(first <= STEPS) if world.pays_once else max(STEPS + 1 - first, 0)

    for k, goal in enumerate(tasks.tolist()):
        returns = every_walk(variant, goal, sum)
        assert best[k] == pytest.approx(returns.max(1).mean())
        assert random[k] == pytest.approx(returns.mean())
        hit = every_walk(variant, goal, any)
        assert lines["random"].successes[k, 0] == pytest.approx(hit.mean())
        reach = hit.max(1).mean()
        assert lines["optimal"].successes[k] == pytest.approx([reach, reach])
        walk = lines["random_then_optimal"]
        assert walk.returns[k, 0] == pytest.approx(every_walk(variant, goal, learned).mean())
        if reach == 1:
            fewest = every_walk(variant, goal, first_reward).min(1)
            assert shortest[k] == pytest.approx(fewest.mean())


@pytest.mark.parametrize("size", [4, [5, 3]])
@pytest.mark.parametrize("variant", VARIANTS, ids=str)
def test_the_optimal_policy_has_the_optimal_return_and_its_steps_to_the_reward(variant, size):
    world = envs.make_base("DarkRoom-v0", size=size, **variant)
    tasks = np.repeat(world.all_tasks(), 16, axis=0)
    steps, policy = world.steps_to_success(tasks), world.optimal_policy(tasks).argmax(-1)
    vec_env = envs.make_vec("DarkRoom-v0", tasks, 8, "Disabled", size=size, **variant)
    observation, _ = vec_env.reset(seed=1)
    env, returns, expected = np.arange(len(tasks)), np.zeros(len(tasks)), steps[:, observation]
    expected, first = expected[env, env], np.full(len(tasks), np.inf)
    for step in range(1, 9):
        observation, reward, *_ = vec_env.unwrapped.step(policy[env, observation])
        first = np.where((first == np.inf) & (reward > 0), step, first)
        returns += reward if not world.terminate else reward * (first == step)
    np.testing.assert_array_equal(first, expected)
    np.testing.assert_array_equal(returns, 1 if world.pays_once else 9 - expected)
    if variant["start"] != "random":
        np.testing.assert_array_equal(returns, world.optimal_return(tasks, 8))
        np.testing.assert_array_equal(first, world.shortest_episode(tasks))


@pytest.mark.parametrize("variant", VARIANTS, ids=str)
def test_the_goals_that_are_possible_are_those_with_the_same_rewards_until_one_is_left(variant):
    world = envs.make_base("DarkRoom-v0", size=3, **variant)
    tasks, names = world.all_tasks(), [name for name in FIELDS if name != "time"]
    actions = np.random.default_rng(0).integers(5, size=(len(tasks), 20))
    vec_env = envs.make_vec("DarkRoom-v0", tasks, 6, size=3, **variant)
    goals = tasks @ [3, 1]
    for k, life in enumerate(batch_trajectories(vec_env, actions, 3)):
        possible = np.ones(len(tasks), bool)
        for time, *values, _ in life:
            seen = {name: np.array(value) for name, value in zip(names, values, strict=True)}
            if possible.sum() > 1:
                possible &= world.possible(seen | {"time": np.array(time)}, tasks)
                begins = (time == 0) & (not world.goal_on_start) & (goals == seen["observation"])
                others = (goals == seen["next_observation"]) == seen["reward"]
                assert not possible[begins | ~others].any() and possible[k]
        rewarded = any(reward for _, _, _, reward, *_ in life)
        assert possible.sum() == 1 or not rewarded


@pytest.mark.parametrize(
    ("kwargs", "num_tasks", "left_out"),
    [({}, 80, [4, 4]), ({"start": "corner"}, 80, [0, 0]), ({"goal_on_start": True}, 81, None)],
)
def test_the_start_is_a_task_only_if_the_goal_may_lie_there(kwargs, num_tasks, left_out):
    tasks = envs.make_base("DarkRoom-v0", **kwargs).all_tasks().tolist()
    assert len(tasks) == num_tasks and left_out not in tasks
