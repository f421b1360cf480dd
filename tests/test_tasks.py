"""The split: disjoint, complete, drawn by a seed or given, and identified by its hash."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import envs
from ad.config import published
from ad.config.parser import load_file
from ad.config.schema import EnvConfig, SplitConfig
from ad.config.world import configured_split
from envs.tasks import check_all_tasks, make_split, other_split

ROOM = ("DarkRoom-v0", {"size": 3})  # eight tasks
# The hash of the split of seed 0 with 5 train tasks, in any process.
HASH = "061ebfe74b21a66b9295b9b56a0e07fb378dd29facb8bd7cf94807eb0ea2bcdc"


def as_set(tasks) -> set[tuple]:
    return {tuple(task) for task in np.asarray(tasks).tolist()}


@given(st.integers(2, 6), st.integers(0, 2**32), st.data())
@settings(max_examples=50, deadline=None, derandomize=True)
def test_train_and_held_out_tasks_partition_all_tasks(size, seed, data):
    num_train_tasks = data.draw(st.integers(1, size**2 - 2))
    split = make_split("DarkRoom-v0", {"size": size}, seed, num_train_tasks)
    train, held_out = as_set(split.train_tasks), as_set(split.held_out_tasks)
    assert len(train) == num_train_tasks and not train & held_out
    assert train | held_out == as_set(envs.make_base("DarkRoom-v0", size=size).all_tasks())


def test_the_same_seed_gives_the_same_split_and_another_seed_another():
    hashes = [make_split(*ROOM, seed, 5).hash for seed in (0, 0, 1)]
    assert hashes[0] == hashes[1] == HASH != hashes[2]


def test_the_order_of_a_held_out_list_does_not_matter():
    split = make_split(*ROOM, 0, 6, held_out=[[2, 0], [0, 1]])
    assert split.held_out_tasks.tolist() == [[0, 1], [2, 0]]
    assert len(split.train_tasks) == 6 and [0, 1] not in split.train_tasks.tolist()
    assert split.hash == make_split(*ROOM, 0, 6, held_out=[[0, 1], [2, 0]]).hash


def test_some_of_the_train_tasks_are_spread_over_all_of_them():
    split = make_split("DarkRoom-v0", {}, 0, 57)
    some = split.with_train_tasks(4)
    assert some.train_index.tolist() == split.train_index[[0, 19, 37, 56]].tolist()
    np.testing.assert_array_equal(some.held_out_tasks, split.held_out_tasks)
    assert split.with_train_tasks(None) is split.with_train_tasks(57) is split


def test_a_number_of_held_out_tasks_leaves_the_rest_out_and_the_train_tasks_as_they_are():
    every, few = make_split(*ROOM, 0, 4), make_split(*ROOM, 0, 4, num_held_out=3)
    assert (len(every.held_out_tasks), len(few.held_out_tasks)) == (4, 3)
    assert as_set(few.held_out_tasks) < as_set(every.held_out_tasks)
    np.testing.assert_array_equal(few.train_tasks, every.train_tasks)
    assert make_split(*ROOM, 0, 4, num_held_out=4).hash == every.hash != few.hash
    with pytest.raises(ValueError, match="num_held_out is 5, but 4 tasks are left"):
        make_split(*ROOM, 0, 4, num_held_out=5)
    with pytest.raises(ValueError, match="that held_out lists already"):
        make_split(*ROOM, 0, 4, [[0, 0]], num_held_out=1)


def test_the_hash_depends_on_every_part_of_the_split():
    lake = [{"is_slippery": True}, {"is_slippery": False}]
    splits = [
        make_split(*ROOM, 0, 5),
        make_split(*ROOM, 0, 6),
        make_split("DarkRoom-v0", {"size": 3, "terminate": False}, 0, 5),
        make_split("FrozenLake-v1", {}, 0, 1, task_kwargs=lake),
        make_split("FrozenLake-v1", {}, 0, 1, task_kwargs=lake[::-1]),
    ]
    assert len({split.hash for split in splits}) == len(splits)


@pytest.mark.parametrize(
    ("num_train_tasks", "held_out", "cause"),
    [
        (0, None, "num_train_tasks"),
        (8, None, "num_train_tasks"),
        (5, [], "held-out"),
        (5, [[0, 0], [0, 0]], "held-out"),
        (5, [[1, 1]], "held-out"),
        (5, [[0, 1.0]], "integers"),
    ],
)
def test_an_impossible_split_is_refused(num_train_tasks, held_out, cause):
    with pytest.raises(ValueError, match=cause):
        make_split(*ROOM, 0, num_train_tasks, held_out)


def test_tasks_that_do_not_fit_into_one_batch_are_refused():
    lakes = [{}, {}, {"desc": ["SF", "FG"]}]
    with pytest.raises(ValueError, match="FrozenLake-v1 cannot be made for these tasks"):
        check_all_tasks("FrozenLake-v1", {}, lakes)


@pytest.mark.parametrize("size", [5, 8, 11])
def test_train_goals_in_a_room_of_another_size_have_the_offsets_of_train_goals(size):
    home = make_split("DarkRoom-v0", {}, 0, 57)
    away = other_split(home, {"size": size})
    trained = {(row - 4, column - 4) for row, column in as_set(home.train_tasks)}
    for tasks, known in ((away.train_tasks, True), (away.held_out_tasks, False)):
        for row, column in as_set(tasks):
            assert ((row - size // 2, column - size // 2) in trained) == known
    every = as_set(envs.make_base("DarkRoom-v0", size=size).all_tasks())
    assert as_set(away.train_tasks) | as_set(away.held_out_tasks) == every


def test_another_world_holds_out_the_tasks_of_a_split_that_holds_out_only_some():
    home = make_split("KeyToDoor-v0", {"size": 4}, 0, 20, num_held_out=9)
    away = other_split(home, {"size": 6, "start": "center"})
    for ours, theirs in (
        (home.train_tasks, away.train_tasks),
        (home.held_out_tasks, away.held_out_tasks),
    ):
        assert as_set(ours - 2) == as_set(theirs - 3)


@pytest.mark.parametrize("held_out", [[[0, 0]], [[1, 2], [2, 1], [1, 1]]])
def test_another_world_without_train_tasks_or_without_held_out_tasks_is_refused(held_out):
    home = make_split("DarkRoom-v0", {"size": 4}, 0, 15 - len(held_out), held_out=held_out)
    with pytest.raises(ValueError, match=r"^(all|none) of its tasks"):
        other_split(home, {"size": 2})


def tuning_split(num_train_tasks: int = 57, **kwargs):
    env = EnvConfig(kwargs=kwargs)
    return configured_split(env, SplitConfig(num_train_tasks=num_train_tasks, tuning=True))


@pytest.mark.parametrize("kwargs", [{}, {"terminate": False}, {"start": "random"}])
def test_the_tuning_split_holds_out_twenty_tasks_of_no_published_row(kwargs):
    tuning = as_set(tuning_split(**kwargs).held_out_tasks)
    assert len(tuning) == 20
    for seed in (*published.SEEDS, 3, 4, 7):
        split = SplitConfig(split_seed=seed, num_train_tasks=57)
        assert tuning <= as_set(configured_split(EnvConfig(kwargs=kwargs), split).train_tasks)
    first = make_split("DarkRoom-v0", kwargs, 1, 57).hash  # of the splits of published rows
    split = SplitConfig(split_seed=1, num_train_tasks=57)
    assert configured_split(EnvConfig(kwargs=kwargs), split).hash == first
    assert not tuning & as_set(load_file("configs/seed_darkroom.yaml").split.held_out)
