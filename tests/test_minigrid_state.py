"""Environments of MiniGrid that are saved and restored in the middle of their episodes."""

import numpy as np
import pytest
from gymnasium.vector import AutoresetMode

import envs
from ad.collection.collect import collect
from ad.collection.job import CollectionJob
from ad.data.histories import HistoryStore
from ad.data.store import PARTIAL
from ad.runtime.run import Run
from ad.runtime.snapshots import flatten
from envs.minigrid import vector_env

OBSTACLES, DOOR_KEY = "MiniGrid-Dynamic-Obstacles-6x6-v0", "MiniGrid-DoorKey-5x5-v0"
MIXTURE = {"members": ["MiniGrid-Empty-5x5-v0", {"id": DOOR_KEY}, {"id": OBSTACLES}]}
PARTS = {"direction": True, "mission": True}
FAMILIES = {
    OBSTACLES: {"max_steps": 9},
    "MiniGrid-Dynamic-Obstacles-Random-6x6-v0": PARTS,
    DOOR_KEY: {"observation": "full"},
    "MiniGrid-MemoryS7FixedStart-v0": {"view": 3},
    "MiniGrid-Fetch-5x5-N2-v0": PARTS,
    "MiniGrid-MultiRoom-N2-S4-v0": {},
    "MiniGrid-Mixture-v0": MIXTURE | PARTS,
    "BabyAI-PutNextS5N2Carrying-v0": {},
    "BabyAI-MiniBossLevel-v0": {},
}
TASKS = [{}, {"seed": 3}]
MODES = [mode.value for mode in AutoresetMode if mode != AutoresetMode.DISABLED]


def make(env_id: str = OBSTACLES, mode: str = MODES[0], **kwargs):
    """Four environments, two of them with a fixed seed, with episodes of at most 23 steps."""
    return envs.make_vec(env_id, [[0], [1], [0], [1]], 23, mode, TASKS, **kwargs)


def actions(vec_env, steps: int = 50, seed: int = 0) -> np.ndarray:
    """Random actions, int [steps, 4]."""
    rng = np.random.default_rng(seed)
    return rng.integers(vec_env.single_action_space.n, size=(steps, 4))


def play(vec_env, taken: np.ndarray) -> list[dict[str, np.ndarray]]:
    """Return copies of what each step returned, as arrays by name."""
    names = "observation", "reward", "terminated", "truncated", "info"
    steps = []
    for action in taken:
        arrays = flatten(dict(zip(names, vec_env.step(action), strict=True)))
        steps.append({name: np.array(values) for name, values in arrays.items()})
    return steps


def same(one: list[dict], other: list[dict]) -> bool:
    """Return whether the steps of two `play` are equal."""
    return len(one) == len(other) and all(
        a.keys() == b.keys() and all(np.array_equal(a[name], b[name]) for name in a)
        for a, b in zip(one, other, strict=True)
    )


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("env_id", FAMILIES)
def test_restored_environments_continue_with_the_same_bits(env_id, mode):
    first, second = (make(env_id, mode, **FAMILIES[env_id]) for _ in range(2))
    first.reset(seed=[7, None, None, 8])
    for steps in (3, 60):  # in the first episodes, and in later ones of other lengths
        play(first, actions(first, steps, seed=1))
        state, taken = first.state(), actions(first, 30)
        expected = play(first, taken)
        second.restore(state)
        assert same(play(second, taken), expected)
        first.restore(state)
        assert same(play(first, taken), expected)


def test_environments_in_processes_are_restored_too():
    first, second = (make(asynchronous=asynchronous) for asynchronous in (True, False))
    first.reset(seed=4)
    play(first, actions(first, 30))
    state, taken = first.state(), actions(first, 20)
    expected = play(first, taken)
    first.restore(state)
    second.restore(state)
    assert same(play(first, taken), expected) and same(play(second, taken), expected)
    first.close()


@pytest.fixture
def other_layouts(monkeypatch):
    """Let restored environments draw other layouts, as another version of the package might."""
    monkeypatch.setattr(vector_env, "new_generator", lambda state: np.random.default_rng(0))


def test_a_replay_that_does_not_reach_the_saved_grids_is_refused(other_layouts):
    first, second = make(DOOR_KEY), make(DOOR_KEY)
    first.reset(seed=1)
    with pytest.raises(ValueError, match="are not those that were saved"):
        second.unwrapped.restore(first.unwrapped.state())


def test_a_collection_whose_replay_is_refused_starts_again_and_says_so(
    smoke, tmp_path, capsys, other_layouts
):
    words = ["--env.id", DOOR_KEY, "--env.kwargs", "{}", "--env.tasks", "[{}, {}]"]
    words += ["--split.num_train_tasks", "1", "--model.encoder", "one_hot"]
    words += ["--model.reward", "projection", "--source.algorithm", "demonstrations"]
    words += ["--source.settings.entries", "[{act: random, share: 1}]"]
    run = Run.open(smoke(tmp_path, *words))
    job = CollectionJob(HistoryStore(run.config), run.split.train_tasks)
    job.writer.append(next(job.source.run(job.steps)))
    job.save()
    collect(run)
    assert "starts again: the environments cannot be restored" in capsys.readouterr().err
    assert not list(HistoryStore(run.config).path.glob(f"{PARTIAL}*"))
