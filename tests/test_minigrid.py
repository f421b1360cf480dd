"""MiniGrid's ids as worlds: observations, tasks, families, pictures, and the missing package."""

import gymnasium
import numpy as np
import pytest
from gymnasium.error import InvalidAction
from minigrid.core import constants
from minigrid.wrappers import FullyObsWrapper, OneHotPartialObsWrapper, ViewSizeWrapper
from trajectories import batch_trajectories

import envs
from envs.minigrid import encoding, make
from envs.minigrid.missions import Missions, members, time_limit
from envs.spaces import Array, Discrete, observation_parts

OBSTACLES, DOOR_KEY = "MiniGrid-Dynamic-Obstacles-8x8-v0", "MiniGrid-DoorKey-6x6-v0"
MEMORY, MIXTURE = "MiniGrid-MemoryS7FixedStart-v0", "MiniGrid-Mixture-v0"
FETCH, LOCAL = "MiniGrid-Fetch-5x5-N2-v0", "BabyAI-GoToLocal-v0"
FAMILIES = [
    *(OBSTACLES, DOOR_KEY, "MiniGrid-Empty-Random-6x6-v0", "MiniGrid-SimpleCrossingS9N2-v0"),
    *(
        "MiniGrid-LavaCrossingS9N1-v0",
        "MiniGrid-MultiRoom-N2-S4-v0",
        "MiniGrid-MemoryS7-v0",
        MEMORY,
    ),
    LOCAL,
]
MEMBERS = ["MiniGrid-Empty-5x5-v0", {"id": DOOR_KEY}, {"id": OBSTACLES, "n_obstacles": 2}]
TWO = [{}, {}]
FORWARD = 2


def walk(vec_env, steps: int = 12, seed: int = 0):
    """Yield the observations of random steps after a reset."""
    rng = np.random.default_rng(seed)
    yield vec_env.reset(seed=seed)[0]
    for _ in range(steps):
        yield vec_env.step(rng.integers(vec_env.single_action_space.n, size=vec_env.num_envs))[0]


@pytest.mark.parametrize("env_id", FAMILIES)
def test_every_family_is_a_world_whose_transitions_are_the_same_in_every_autoreset_mode(env_id):
    world = envs.make_base(env_id, TWO)
    assert world.all_tasks().tolist() == [[0], [1]] and world.max_episode_steps > 0
    actions = np.random.default_rng(0).integers(world.single_action_space.n, size=(2, 30))
    same, other = (
        batch_trajectories(envs.make_vec(env_id, [[0], [1]], 9, mode, TWO), actions, 5)
        for mode in ("SameStep", "NextStep")
    )
    assert same == other


@pytest.mark.parametrize(
    ("kwargs", "part"),
    [
        ({}, Array((7, 7, 3), "uint8", 0.0, 10.0)),
        ({"view": 5}, Array((5, 5, 3), "uint8", 0.0, 10.0)),
        ({"observation": "one_hot", "view": 9}, Array((9, 9, 20), "uint8", 0.0, 1.0)),
        ({"observation": "full"}, Array((6, 6, 3), "uint8", 0.0, 10.0)),
        ({"observation": "rgb", "view": 3}, Array((12, 12, 3), "uint8", 0.0, 255.0)),
        ({"observation": "rgb", "pixels": 8}, Array((56, 56, 3), "uint8", 0.0, 255.0)),
    ],
)
def test_an_observation_is_an_array_of_the_size_and_kind_that_the_settings_say(kwargs, part):
    vec_env = envs.make_vec(DOOR_KEY, [[0], [1]], 20, "SameStep", TWO, **kwargs)
    assert observation_parts(vec_env.unwrapped) == {"": part}
    for observation in walk(vec_env):
        assert observation.dtype == np.uint8 and observation in vec_env.observation_space


def test_direction_and_mission_are_further_parts_of_the_observation():
    settings = {"direction": True, "mission": True}
    vec_env = envs.make_vec(FETCH, [[0], [1]], 20, "SameStep", TWO, **settings)
    parts = observation_parts(vec_env.unwrapped)
    assert parts["direction"] == Discrete(4, (4,)) and parts["mission"] == Discrete(60, (60,))
    missions = {int(one) for seed in range(20) for one in vec_env.reset(seed=seed)[0]["mission"]}
    assert len(missions) > 5
    env = make.make(FETCH, **settings)
    observation, _ = env.reset(seed=3)
    grid_env = env.unwrapped
    assert list(env.missions.numbers)[observation["mission"]] == grid_env.mission
    assert observation["direction"] == grid_env.agent_dir


@pytest.mark.parametrize(
    ("env_id", "most"),  # words, by hand: "put the red ball next to the green key" has 9
    [
        *((LOCAL, 5), ("BabyAI-GoToRedBall-v0", 5), ("BabyAI-PutNextS5N2Carrying-v0", 9)),
        *(("BabyAI-OpenDoorLoc-v0", 8), ("BabyAI-MiniBossLevel-v0", 72)),
        ("MiniGrid-GoToDoor-5x5-v0", 5),
    ],
)
def test_levels_and_their_missions_as_words_are_those_of_the_package(env_id, most, capsys):
    ours = envs.make_base(env_id, tasks=[[0]], mission="words")
    assert observation_parts(ours)["mission"] == Array((most,), "uint8", 0.0, len(encoding.WORDS))
    theirs = gymnasium.make(env_id, disable_env_checker=True)
    rng, ended, ends = np.random.default_rng(0), True, 0
    for step in range(1500):
        if ended:
            seen, (expected, _) = ours.reset(seed=step)[0], theirs.reset(seed=step)
        else:
            action = int(rng.choice(6, p=[0.2, 0.2, 0.3, 0.1, 0.1, 0.1]))
            seen, *outcome, _ = ours.step([action])
            expected, *wanted, _ = theirs.step(action)
            assert [float(one[0]) for one in outcome] == [np.float32(wanted[0]), *wanted[1:]]
        ended = not ended and (wanted[1] or wanted[2])
        ends += ended
        np.testing.assert_array_equal(seen["image"][0], expected["image"])
        text = encoding.words_of(seen["mission"][0])
        assert text == expected["mission"].replace(",", "") and text
    assert ends
    assert capsys.readouterr().out == ""  # though the package tells of each layout it rejects


def test_no_mission_of_any_id_is_longer_than_its_family_declares_nor_any_episode():
    make.require(LOCAL)
    ids = [name for name in gymnasium.registry if name.startswith(make.PREFIXES)]
    for env_id in (name for name in ids if "WFC" not in name and name != MIXTURE):
        env = gymnasium.make(env_id, disable_env_checker=True)
        missions, (inside,) = Missions.find(env, "words"), members(env)
        limit = time_limit(inside)
        for seed in range(12):
            text = env.reset(seed=seed)[0]["mission"]
            assert encoding.words_of(missions.encode(text)) == text.replace(",", "")
            assert inside.max_steps <= limit
    assert envs.make_base("BabyAI-GoToSeq-v0", TWO).max_episode_steps == 4 * 9 * 8**2


def test_families_with_words_may_mix_both_packages_and_other_words_are_refused():
    members = [LOCAL, "MiniGrid-PutNear-6x6-N2-v0"]
    world = envs.make_base(MIXTURE, TWO, mission="words", members=members, tasks=[[0], [1]])
    assert world.max_episode_steps == 64 and observation_parts(world)["mission"].shape == (8,)
    assert not isinstance(envs.make(LOCAL, mission=False).observation_space, gymnasium.spaces.Dict)
    with pytest.raises(ValueError, match="'zebra' in 'fetch a zebra' is no word"):
        encoding.word_numbers("fetch a zebra")


@pytest.mark.parametrize("view", [3, 9])
def test_views_are_those_of_the_package(view):
    ours, theirs = make.make(DOOR_KEY, view=view), gymnasium.make(DOOR_KEY)
    theirs = ViewSizeWrapper(theirs, view)
    for seed in range(5):
        np.testing.assert_array_equal(ours.reset(seed=seed)[0], theirs.reset(seed=seed)[0]["image"])
        np.testing.assert_array_equal(ours.step(FORWARD)[0], theirs.step(FORWARD)[0]["image"])


@pytest.mark.parametrize(
    ("kind", "wrapper"), [("one_hot", OneHotPartialObsWrapper), ("full", FullyObsWrapper)]
)
def test_one_hot_and_full_observations_are_those_of_the_package(kind, wrapper):
    ours, theirs = make.make(DOOR_KEY, observation=kind), wrapper(gymnasium.make(DOOR_KEY))
    for seed in range(5):
        np.testing.assert_array_equal(ours.reset(seed=seed)[0], theirs.reset(seed=seed)[0]["image"])
        for action in (0, FORWARD, FORWARD):
            np.testing.assert_array_equal(ours.step(action)[0], theirs.step(action)[0]["image"])


def test_the_encoding_is_that_of_the_package_and_one_hot_can_be_read_back():
    assert {name: i for i, name in enumerate(encoding.OBJECTS)} == constants.OBJECT_TO_IDX
    assert {name: i for i, name in enumerate(encoding.COLORS)} == constants.COLOR_TO_IDX
    assert {name: i for i, name in enumerate(encoding.STATES)} == constants.STATE_TO_IDX
    cells = np.random.default_rng(0).integers([11, 6, 3], size=(4, 7, 7, 3)).astype(np.uint8)
    planes = encoding.one_hot(cells)
    assert planes.shape == (4, 7, 7, 20) and planes.sum() == 3 * 4 * 49
    np.testing.assert_array_equal(encoding.from_one_hot(planes), cells)


def test_a_task_with_a_seed_has_the_same_layout_at_every_reset():
    tasks = [{"seed": 1}, {"seed": 2}, {}]
    vec_env = envs.make_vec(DOOR_KEY, [[0], [1], [2]], 9, "SameStep", tasks, observation="full")
    first = vec_env.reset(seed=7)[0]
    again = [vec_env.reset()[0] for _ in range(4)]
    assert all((one[:2] == first[:2]).all() for one in again)
    assert (first[0] != first[1]).any() and any((one[2] != first[2]).any() for one in again)
    expected, _ = FullyObsWrapper(gymnasium.make(DOOR_KEY)).reset(seed=1)
    np.testing.assert_array_equal(first[0], expected["image"])


def test_a_task_may_be_a_member_of_a_family_and_members_may_have_fewer_actions():
    tasks = [{"id": "MiniGrid-Empty-8x8-v0"}, {"max_steps": 17}]
    world = envs.make_base(OBSTACLES, tasks, tasks=[[0], [1]])
    assert world.single_action_space.n == 7 and world.max_episode_steps == 256
    assert world.action_mask([[1], [0]]).tolist() == [[True] * 3 + [False] * 4, [True] * 7]
    vec_env = envs.make_vec(OBSTACLES, [[0], [1]], 30, "SameStep", tasks)
    vec_env.reset(seed=0)
    vec_env.step([6, 2])
    with pytest.raises(InvalidAction, match=r"do not have the actions \[3\]"):
        vec_env.step([0, 3])
    assert envs.make_base(OBSTACLES, [{"max_steps": 17}] * 2).max_episode_steps == 17


@pytest.mark.parametrize("side", ["upper", "lower", None])
@pytest.mark.parametrize("target", ["key", "ball", None])
def test_the_target_of_memory_can_be_forced_and_the_start_is_fixed(side, target):
    env = make.make(MEMORY, target_side=side, target_object=target)
    seen = set()
    for seed in range(20):
        env.reset(seed=seed)
        grid_env = env.unwrapped
        assert tuple(grid_env.agent_pos) == (1, 3) and grid_env.agent_dir == 0
        cue, upper, lower = (grid_env.grid.get(*cell).type for cell in ((1, 2), (5, 1), (5, 5)))
        assert upper != lower
        found = "upper" if upper == cue else "lower"
        assert grid_env.success_pos == ((5, 2) if found == "upper" else (5, 4))
        assert {grid_env.success_pos, grid_env.failure_pos} == {(5, 2), (5, 4)}
        seen.add((found, cue))
    sides, targets = {one[0] for one in seen}, {one[1] for one in seen}
    assert sides == ({side} if side else {"upper", "lower"})
    assert targets == ({target} if target else {"key", "ball"})


def test_a_mixture_draws_its_member_from_the_seed_of_the_reset():
    one, other = (make.make(MIXTURE, members=MEMBERS) for _ in range(2))
    assert one.action_space.n == 7
    drawn = []
    for seed in [*range(30), *range(30)]:
        observation, _ = one.reset(seed=seed)
        drawn.append((one.unwrapped.member.spec.id, observation.tobytes()))
    assert drawn[:30] == drawn[30:] and len({env_id for env_id, _ in drawn}) == 3
    for seed in (3, 4):
        other.reset(seed=99)
        other.step(1)
        observation, _ = other.reset(seed=seed)
        assert (other.unwrapped.member.spec.id, observation.tobytes()) == drawn[seed]
    one.reset(seed=0)
    members = {one.reset()[0].tobytes() for _ in range(10)}
    assert len(members) > 3


def episode(vec_env, actions: list[int]) -> dict[str, np.ndarray]:
    """The recorded fields of an episode of the first environment."""
    observations = [vec_env.reset(seed=0)[0]]
    observations += [vec_env.step([action])[0] for action in actions]
    fields = {"action": np.array(actions)}
    for role, part in (("observation", observations[:-1]), ("next_observation", observations[1:])):
        if isinstance(part[0], dict):
            names = part[0]
            fields |= {f"{role}-{name}": np.stack([one[name][0] for one in part]) for name in names}
        else:
            fields[role] = np.stack([one[0] for one in part])
    return fields


@pytest.mark.parametrize("kwargs", [{}, {"direction": True}, {"observation": "rgb"}])
def test_the_pictures_of_a_task_with_a_seed_are_the_packages_own(kwargs):
    vec_env = envs.make_vec(OBSTACLES, [[0]], 30, "SameStep", [{"seed": 4}, {}], **kwargs)
    actions = [1, 0, 1]
    frames = vec_env.unwrapped.frames([0], episode(vec_env, actions))
    theirs = gymnasium.make(OBSTACLES)
    theirs.reset(seed=4)
    expected = [theirs.unwrapped.get_frame()]
    for action in actions:
        theirs.step(action)
        expected.append(theirs.unwrapped.get_frame())
    np.testing.assert_array_equal(frames, expected)


@pytest.mark.parametrize("kind", ["index", "one_hot", "full"])
def test_the_pictures_of_an_unknown_layout_are_the_recorded_observations(kind):
    vec_env = envs.make_vec(DOOR_KEY, [[0]], 30, "SameStep", observation=kind)
    actions = [2, 1, 2, 0]
    frames = vec_env.unwrapped.frames([0], episode(vec_env, actions))
    theirs = gymnasium.make(DOOR_KEY).unwrapped
    theirs.reset(seed=0)
    for action in actions:
        theirs.step(action)
    expected = theirs.get_frame(highlight=False, agent_pov=kind != "full")
    np.testing.assert_array_equal(frames[-1], expected)
    assert frames.dtype == np.uint8 and len(frames) == 5


@pytest.mark.parametrize(
    ("env_id", "tasks", "kwargs", "name"),
    [
        ("MiniGrid-DorKey-6x6-v0", None, {}, "MiniGrid-DoorKey-6x6-v0"),
        ("BabyAI-GoToRedBal-v0", None, {}, "did you mean BabyAI-GoToRedBall-v0"),
        (LOCAL, None, {"mission": True}, "have no numbers: mission must be words"),
        (OBSTACLES, None, {"view": 4}, "view"),
        (OBSTACLES, None, {"mission": "word"}, "mission"),
        (OBSTACLES, None, {"observation": "onehot"}, "observation"),
        (OBSTACLES, [{"seed": -1}], {}, "seed"),
        (OBSTACLES, None, {"sise": 6}, "cannot be made"),
        (MEMORY, None, {"target_side": "left"}, "target_side"),
        (MIXTURE, None, {"members": [{"size": 5}]}, "member"),
        (MIXTURE, None, {"members": MEMBERS, "observation": "full"}, "differ in size"),
    ],
)
def test_a_bad_id_or_setting_is_refused(env_id, tasks, kwargs, name):
    with pytest.raises(ValueError, match=name):
        _ = envs.make_base(env_id, tasks, **kwargs).single_observation_space


def test_without_the_package_one_sentence_says_what_to_install(monkeypatch):
    monkeypatch.setattr("envs.extras.find_spec", lambda name: None)
    for maker in (envs.make, envs.make_base, lambda env_id: envs.make_vec(env_id, [[0]])):
        with pytest.raises(
            ValueError, match=r'not installed \(minigrid\): pip install "algorithm-dist.*\[min'
        ):
            maker(OBSTACLES)
    assert envs.make_base("HiddenObject-v0").num_envs == 1
