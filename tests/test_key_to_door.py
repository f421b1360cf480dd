"""The rooms with a key and a door: their rules, and the facts about their tasks."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import envs
from ad.data.derived import knows_optimal_actions
from envs.render import key_door_frames

WORLD = "KeyToDoor-v0"
STAY, UP, DOWN, LEFT, RIGHT = range(5)
MOVES = [(0, 0), (-1, 0), (1, 0), (0, -1), (0, 1)]
DOOR_PAYS = ["once", "every_step"]


def world(num_envs: int | None = None, **kwargs):
    return envs.make_base(WORLD, num_envs=num_envs, **kwargs)


class Room:
    """One environment, by the definition."""

    def __init__(self, shape: tuple[int, int], task, door_pays: str):
        self.shape, self.key, self.door = shape, tuple(task[:2]), tuple(task[2:])
        self.door_pays = door_pays

    def next(self, place: tuple, held: bool, action: int):
        """Return the place, whether the key is held, the reward and the end of a step."""
        place = tuple(
            min(max(x + dx, 0), most - 1)
            for x, dx, most in zip(place, MOVES[action], self.shape, strict=True)
        )
        if not held:
            return place, place == self.key, float(place == self.key), False
        opened = place == self.door
        return place, True, float(opened), opened and self.door_pays == "once"

    def value(self, place: tuple, held: bool, steps: int, combine) -> float:
        """Return the expected return of `steps` steps, where `combine` joins those of actions."""
        values = {(at, has): 0.0 for at in np.ndindex(self.shape) for has in (0, 1)}
        for _ in range(steps):
            before = dict(values)
            for at, has in values:
                outcomes = [self.next(at, has, action) for action in range(5)]
                values[at, has] = combine(
                    [r + (not end) * before[after, now] for after, now, r, end in outcomes]
                )
        return values[place, held]


@settings(max_examples=40, deadline=None)
@given(
    shape=st.tuples(st.integers(2, 5), st.integers(2, 5)),
    start=st.sampled_from(["random", "center", "corner"]),
    see_key=st.booleans(),
    door_pays=st.sampled_from(DOOR_PAYS),
    seed=st.integers(0, 10**6),
)
def test_a_batch_steps_as_single_rooms_do_by_the_definition(shape, start, see_key, door_pays, seed):
    columns, cells = shape[1], shape[0] * shape[1]
    rng = np.random.default_rng(seed)
    rooms = world(12, size=list(shape), start=start, see_key=see_key, door_pays=door_pays)
    rooms = world(
        tasks=rng.permutation(rooms.all_tasks())[:12],
        size=list(shape),
        start=start,
        see_key=see_key,
        door_pays=door_pays,
    )
    theirs = [Room(shape, task, door_pays) for task in rooms.tasks.tolist()]
    observation, _ = rooms.reset(seed=seed)
    places = [tuple(map(int, divmod(cell % cells, columns))) for cell in observation]
    held = [False] * len(theirs)
    if start != "random":
        assert set(places) == {(0, 0) if start == "corner" else (shape[0] // 2, columns // 2)}
    for _ in range(40):
        actions = rng.integers(5, size=len(theirs))
        observation, reward, terminated, truncated, _ = rooms.step(actions)
        for env, room in enumerate(theirs):
            places[env], held[env], paid, ends = room.next(places[env], held[env], actions[env])
            row, column = places[env]
            expected = row * columns + column + (see_key and held[env]) * cells
            assert (observation[env], reward[env], terminated[env]) == (expected, paid, ends)
        assert not truncated.any()
        if terminated.any():
            observation, _ = rooms.reset(options={"reset_mask": terminated})
            for env in np.flatnonzero(terminated):
                places[env] = tuple(map(int, divmod(observation[env] % cells, columns)))
                held[env] = False
                assert observation[env] < cells  # without the key


def test_the_tasks_are_all_pairs_of_different_cells():
    assert len(world().all_tasks()) == 81 * 80
    tasks = world(size=3).all_tasks()
    assert len(np.unique(tasks, axis=0)) == 72 and (tasks[:, :2] != tasks[:, 2:]).any(1).all()
    assert world().names([[0, 3, 7, 1]]) == ["key (0, 3), door (7, 1)"]
    assert world(size=3).relative_tasks([[0, 1, 2, 2]]).tolist() == [[-1, 0, 1, 1]]


@pytest.mark.parametrize("start", ["random", "center", "corner"])
@pytest.mark.parametrize("door_pays", DOOR_PAYS)
@pytest.mark.parametrize(("limit", "shape"), [(2, (3, 3)), (5, (2, 4))])
def test_returns_are_those_of_dynamic_programming_over_the_definition(
    start, door_pays, limit, shape
):
    rooms = world(size=shape, start=start, door_pays=door_pays)
    tasks = rooms.all_tasks()[::7]
    starts = [divmod(cell, shape[1]) for cell in rooms.start_cells().tolist()]
    facts = (rooms.optimal_return(tasks, limit), max), (rooms.random_return(tasks, limit), np.mean)
    for values, combine in facts:
        for k, task in enumerate(tasks.tolist()):
            room = Room(shape, task, door_pays)
            expected = np.mean([room.value(place, False, limit, combine) for place in starts])
            assert values[k] == pytest.approx(expected)
    alone = [rooms.random_return(tasks[[k]], limit).item() for k in (0, 3, len(tasks) - 1)]
    assert alone == pytest.approx(rooms.random_return(tasks, limit)[[0, 3, -1]])
    random = rooms.references(tasks, limit, 4)["random"]
    assert random.returns == pytest.approx(np.tile(rooms.random_return(tasks, limit), (4, 1)).T)
    once = world(size=shape, start=start)
    to_key = once.random_return(tasks, limit) - random.successes[:, 0]  # the key's probability
    assert (to_key >= random.successes[:, 0] - 1e-12).all() and (to_key <= 1).all()
    assert random.p_success[:, 1] == pytest.approx(1 - (1 - random.successes[:, 0]) ** 2)


@pytest.mark.parametrize("see_key", [True, False])
@pytest.mark.parametrize("door_pays", DOOR_PAYS)
def test_the_optimal_policy_reaches_key_and_door_in_the_fewest_steps(see_key, door_pays):
    rooms = world(size=4, see_key=see_key, door_pays=door_pays)
    tasks = np.repeat(rooms.all_tasks()[::5], 4, axis=0)
    rooms = world(tasks=tasks, size=4, see_key=see_key, door_pays=door_pays)
    policy, steps = rooms.optimal_policy(tasks), rooms.steps_to_success(tasks)
    assert policy.shape == (len(tasks), 32, 5) and policy.sum(-1) == pytest.approx(1)
    observation, _ = rooms.reset(seed=3)
    rng, env = np.random.default_rng(0), np.arange(len(tasks))
    expected, total = steps[env, observation], np.zeros(len(tasks))
    for step in range(1, 14):
        state = observation if see_key else rooms.states()
        cumulative = policy[env, state].cumsum(-1)
        actions = (rng.random(len(tasks))[:, None] >= cumulative[:, :-1]).sum(1)
        observation, reward, terminated, *_ = rooms.step(actions)
        total += reward
        np.testing.assert_array_equal(rooms.success(total), step >= expected)
        np.testing.assert_array_equal(terminated, (step >= expected) & (door_pays == "once"))
    assert rooms.shortest_episode(tasks) == pytest.approx(steps[:, :16].mean(1))


def test_states_and_observations_are_one_where_the_key_is_seen():
    seen, hidden = world(size=3, see_key=True), world(size=3)
    assert seen.observation_factors == (2, 3, 3) and hidden.observation_factors == (3, 3)
    assert seen.states() is None and hidden.states().tolist() == [0]
    assert knows_optimal_actions(seen) and not knows_optimal_actions(hidden)


@pytest.mark.parametrize("see_key", [True, False])
@pytest.mark.parametrize("door_pays", DOOR_PAYS)
def test_possible_tasks_are_those_that_would_have_given_the_same_rewards(see_key, door_pays):
    tasks = world(size=2).all_tasks()
    rooms = world(tasks=tasks, size=2, see_key=see_key, door_pays=door_pays)
    rng = np.random.default_rng(0)
    for _ in range(30):
        observation, _ = rooms.reset(seed=int(rng.integers(1000)))
        places = [divmod(int(cell), 2) for cell in observation]
        consistent = np.ones((12, 12), bool)  # of the environment, of the task
        found = consistent.copy()
        held, running = np.zeros((12, 12), bool), np.ones(12, bool)
        for _ in range(12):
            before, state = observation, rooms.states()
            actions = rng.integers(5, size=12)
            observation, reward, terminated, *_ = rooms.step(actions, running)
            seen = {
                **{"observation": before, "next_observation": observation, "reward": reward},
                **{"action": actions, "terminated": terminated},
                **({} if see_key else {"state": state}),
            }
            found &= rooms.possible(seen, tasks) | ~running[:, None]
            for env, k in np.argwhere(consistent & running[:, None]):
                room = Room((2, 2), tasks[k].tolist(), door_pays)
                step = room.next(places[env], held[env, k], actions[env])
                held[env, k] = step[1]
                consistent[env, k] = step[2:] == (reward[env], terminated[env])
            places = [divmod(int(cell) % 4, 2) for cell in observation]
            np.testing.assert_array_equal(found, consistent)
            assert found[np.arange(12), np.arange(12)].all()
            running &= ~terminated


def test_frames_show_key_door_agent_and_trail():
    rooms = world(size=3)
    cells, rewards = np.array([4, 3, 4, 5]), np.array([1.0, 0.0, 1.0])
    fields = {"observation": cells[:-1], "next_observation": cells[1:], "reward": rewards}
    frames = rooms.frames((1, 0, 1, 2), fields)
    assert frames.shape == (4, 96, 96, 3) and frames.dtype == np.uint8
    held = np.array([False, True, True, True])
    np.testing.assert_array_equal(frames, key_door_frames((3, 3), cells, 3, 5, held))
