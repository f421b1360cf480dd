"""Dark rooms with permuted actions and with sequences, against scalar rules and all walks."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import envs

STAY, UP, DOWN, LEFT, RIGHT = range(5)
PERMUTED, SEQUENCES = "DarkRoomPermuted-v0", "DarkRoomSequences-v0"
FIELDS = ("observation", "action", "reward", "next_observation", "terminated", "time")


class ScalarRoom:
    """One room by the definition: `moves_of(action)` are made one after the other."""

    def __init__(self, size, start, goal, moves_of, terminate):
        self.size, self.start, self.goal = size, start, goal
        self.moves_of, self.terminate = moves_of, terminate
        self.row, self.column = start

    def step(self, action):
        reached = False
        for move in self.moves_of(action):
            row = self.row + (move == DOWN) - (move == UP)
            column = self.column + (move == RIGHT) - (move == LEFT)
            if 0 <= row < self.size and 0 <= column < self.size:
                self.row, self.column = row, column
            reached = reached or (self.row, self.column) == self.goal
        return self.row * self.size + self.column, float(reached), reached and self.terminate


def permuted(size, task):
    return ScalarRoom(size, (0, 0), (size - 1, size - 1), lambda a: [task[a]], terminate=False)


def sequences(size, task):
    half = (size // 2, size // 2)
    return ScalarRoom(size, half, tuple(task), lambda a: [a // 25, a // 5 % 5, a % 5], True)


SCALARS = {PERMUTED: permuted, SEQUENCES: sequences}
NUM_ACTIONS = {PERMUTED: 5, SEQUENCES: 125}


@given(st.sampled_from([PERMUTED, SEQUENCES]), st.integers(2, 5), st.integers(0, 99))
@settings(max_examples=80, deadline=None, derandomize=True)
def test_a_batch_has_the_transitions_of_the_scalar_rules(env_id, size, seed):
    rng = np.random.default_rng(seed)
    all_tasks = envs.make_base(env_id, size=size).all_tasks()
    tasks = all_tasks[rng.integers(len(all_tasks), size=4)]
    world = envs.make_base(env_id, tasks=tasks, size=size)
    observation, _ = world.reset(seed=seed)
    rooms = [SCALARS[env_id](size, task) for task in tasks.tolist()]
    assert observation.tolist() == [room.row * size + room.column for room in rooms]
    for actions in rng.integers(NUM_ACTIONS[env_id], size=(12, 4)):
        observation, reward, terminated, *_ = world.step(actions)
        expected = [room.step(action) for room, action in zip(rooms, actions, strict=True)]
        for env, step in enumerate(zip(observation, reward, terminated, strict=True)):
            assert step == expected[env]
        for env in np.flatnonzero(terminated):
            rooms[env] = SCALARS[env_id](size, tasks[env].tolist())
        if terminated.any():
            world.reset(options={"reset_mask": terminated})


@pytest.mark.parametrize(("env_id", "steps"), [(PERMUTED, 3), (SEQUENCES, 2)])
def test_the_facts_are_those_of_all_walks(env_id, steps):
    world = envs.make_base(env_id, size=2 if env_id == PERMUTED else 3)
    tasks = world.all_tasks()[[0, 3, -1]]
    lines = world.references(tasks, steps, 3)
    for k, task in enumerate(tasks.tolist()):
        returns, firsts = [], []
        for walk in itertools.product(range(NUM_ACTIONS[env_id]), repeat=steps):
            room, rewards = SCALARS[env_id](world.shape[0], task), []
            for action in walk:
                _, reward, terminated = room.step(action)
                rewards.append(reward)
                if terminated:
                    break
            returns.append(sum(rewards))
            firsts.append(rewards.index(1.0) + 1 if 1.0 in rewards else np.inf)
        assert world.optimal_return(tasks, steps)[k] == max(returns)
        assert world.random_return(tasks, steps)[k] == pytest.approx(np.mean(returns))
        assert world.shortest_episode(tasks)[k] == min(firsts)
        assert lines["random"].returns[k] == pytest.approx([np.mean(returns)] * 3)
        assert lines["random"].successes[k, 0] == pytest.approx(np.mean(np.array(returns) > 0))
        assert lines["optimal"].returns[k].tolist() == [max(returns)] * 3


@pytest.mark.parametrize("env_id", [PERMUTED, SEQUENCES])
def test_the_optimal_policy_takes_the_fewest_steps_from_every_cell(env_id):
    world = envs.make_base(env_id, size=5)
    tasks = world.all_tasks()[::7]
    policy, steps = world.optimal_policy(tasks), world.steps_to_success(tasks)
    np.testing.assert_allclose(policy.sum(-1), 1)
    for k, task in enumerate(tasks.tolist()):
        for cell, action in np.argwhere(policy[k] > 0).tolist():
            room = SCALARS[env_id](5, task)
            room.row, room.column = divmod(cell, 5)
            after, reward, _ = room.step(action)
            left = 0 if reward else steps[k, after]
            assert left == max(steps[k, cell] - 1, 0)


@pytest.mark.parametrize("env_id", [PERMUTED, SEQUENCES])
def test_the_tasks_that_are_possible_are_those_with_the_same_transitions(env_id):
    world = envs.make_base(env_id, size=4)
    tasks, rng = world.all_tasks(), np.random.default_rng(0)
    true, life = tasks[11].tolist(), []
    room, cell, time = SCALARS[env_id](4, true), None, 0
    cell = room.row * 4 + room.column
    for _ in range(25):
        action = int(rng.integers(NUM_ACTIONS[env_id]))
        after, reward, ended = room.step(action)
        life.append((cell, action, reward, after, ended, time))
        cell, time = after, time + 1
        if ended:
            room, time = SCALARS[env_id](4, true), 0
            cell = room.row * 4 + room.column
    seen = {
        name: np.array(part) for name, part in zip(FIELDS, zip(*life, strict=True), strict=True)
    }
    found = world.possible(seen, tasks)
    assert found.shape == (25, len(tasks)) and found[:, 11].all()
    for k, task in enumerate(tasks.tolist()):
        same = []
        for before, action, reward, after, ended, _ in life:
            room = SCALARS[env_id](4, task)
            room.row, room.column = divmod(before, 4)
            on_goal = room.terminate and (room.row, room.column) == room.goal
            same.append(room.step(action) == (after, reward, ended) and not on_goal)
        assert found[:, k].tolist() == same


@pytest.mark.parametrize("env_id", [PERMUTED, SEQUENCES])
def test_a_frame_shows_the_agent_and_the_goal(env_id):
    world = envs.make_base(env_id, num_envs=1, size=3, render_mode="rgb_array")
    observation, _ = world.reset(seed=0)
    (first,) = world.render()
    action = int(world.optimal_policy(world.tasks)[0, observation[0]].argmax())
    after, reward, *_ = world.step([action])
    transitions = {"observation": observation, "next_observation": after, "reward": reward}
    frames = world.frames(world.tasks[0], transitions)
    assert frames.shape == (2, 96, 96, 3) and frames.dtype == np.uint8
    np.testing.assert_array_equal(frames[0], first)
    assert (frames[0] != frames[1]).any()


def test_the_ceiling_of_sequences_counts_three_cells_a_step():
    world = envs.make_base(SEQUENCES)
    lines = world.references(world.all_tasks(), 5, 7)
    assert set(lines) == {"random", "random_then_optimal", "ceiling", "optimal"}
    assert lines["ceiling"].successes[0, :2] == pytest.approx([15 / 80, 30 / 80])
