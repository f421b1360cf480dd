"""Histories in other formats: what a round trip keeps, and training on what was imported."""

import json
from dataclasses import replace
from pathlib import Path

import gymnasium
import h5py
import minari
import numpy as np
import pytest
from exchanged import FORMATS, PLACES, collected_run, histories, imported, work_in, write_xland
from synthetic import write_synthetic
from training_run import SHORT, words_of

from ad.cli import VERBS, exit_code
from ad.collection.collect import collect
from ad.collection.job import new_source
from ad.data.histories import HistoryStore
from ad.data.manifest import MANIFEST, STOPPED
from ad.data.store import load_history
from ad.exchange import export
from ad.exchange.export import export_histories
from ad.exchange.formats import nested, time_in_episode
from ad.exchange.recorded import RecordedWorld, describe_parts
from ad.runtime.run import Run
from envs.spaces import observation_parts, split_observation

HERE = Path(__file__).parent
LOST = {"minari": (), "parquet": (), "xland": ("next_observation", "terminated", "truncated")}


@pytest.fixture(autouse=True)
def root(tmp_path, monkeypatch) -> Path:
    return work_in(tmp_path, monkeypatch)


@pytest.fixture(scope="module")
def run(smoke, tmp_path_factory) -> Run:
    return collected_run(smoke, tmp_path_factory.mktemp("collected"))


@pytest.mark.parametrize("name", FORMATS)
def test_a_round_trip_in_small_chunks_keeps_what_the_format_holds(run, root, name, monkeypatch):
    export_histories(run, name, PLACES[name])
    monkeypatch.setattr("ad.exchange.recorded.CHUNK_BYTES", 3 * 3 * 20 * 13)
    back = imported(name, PLACES[name], root)
    np.testing.assert_array_equal(back.split.train_tasks, run.split.train_tasks)
    assert back.split.hash == run.split.hash
    for before, after in zip(histories(run), histories(back), strict=True):
        assert before.keys() == after.keys()
        for field in before.keys() - {*LOST[name]}:
            assert before[field].dtype == after[field].dtype
            np.testing.assert_array_equal(before[field], after[field])


def test_a_round_trip_through_xland_loses_only_ends_of_episodes(run, root):
    export_histories(run, "xland", "noisy.hdf5")
    back = imported("xland", "noisy.hdf5", root)
    for before, after in zip(histories(run), histories(back), strict=True):
        done = before["terminated"] | before["truncated"]
        np.testing.assert_array_equal(done, after["terminated"] | after["truncated"])
        np.testing.assert_array_equal(
            np.where(done, before["observation"], before["next_observation"])[:, :-1],
            after["next_observation"][:, :-1],
        )
        early = before["time"] < run.config.env.episode_length - 1
        np.testing.assert_array_equal(before["terminated"][early], after["terminated"][early])


def test_minari_loads_the_episodes_in_learning_order_with_their_metadata(run):
    export_histories(run, "minari", "rooms/noisy-v0")
    data = minari.load_dataset("rooms/noisy-v0")
    assert data.total_steps == 3 * 90
    for episode in data.iterate_episodes(range(10)):
        assert all(map(data.observation_space.contains, episode.observations))
        assert all(map(data.action_space.contains, episode.actions))
    metadata = list(data.storage.get_episode_metadata(range(data.total_episodes)))
    places = [(m["history"], m["actor"], m["episode_in_history"]) for m in metadata]
    assert places == sorted(places) and len({*places}) == len(places)
    wanted = {"task": "0-0", "source": "noise_distillation", "source_seed": 0, "first_step": 0}
    first_task = "-".join(map(str, run.split.train_tasks[0]))
    assert {key: metadata[0][key] for key in wanted} == wanted | {"task": first_task}
    whole = histories(run)[0]
    episode = next(data.iterate_episodes())
    length = len(episode.rewards)
    np.testing.assert_array_equal(episode.observations[:-1], whole["observation"][0, :length])
    assert episode.observations[-1] == whole["next_observation"][0, length - 1]


def test_xland_has_the_arrays_that_its_data_sets_have(run):
    export_histories(run, "xland", "noisy.hdf5")
    with h5py.File("noisy.hdf5") as file:
        assert [*file] == ["0", "1", "2"]
        assert {*file["0"].attrs} == {"env-id", "benchmark-id", "ruleset-id"}
        dtypes = {name: array.dtype.name for name, array in file["0"].items()}
        assert dtypes == {
            **{"states": "uint8", "actions": "uint8", "rewards": "float16", "dones": "bool"},
            "expert_actions": "uint8",
        }
        tasks = [run.world.all_tasks()[group.attrs["ruleset-id"]] for group in file.values()]
        np.testing.assert_array_equal(tasks, run.split.train_tasks)
        best = run.world.optimal_policy(run.split.train_tasks[:1])[0]
        states, expert = file["0/states"][:], file["0/expert_actions"][:]
        assert (best[states, expert] == best[states].max(-1)).all()
        assert file["0/states"].chunks == (1, 30) and file["0/states"].compression_opts == 6


def train_words(run: Run, **changes: str) -> list[str]:
    settings = SHORT | {"root": run.config.root, "device": "cpu", "threads": "1"}
    settings |= {"data.context_length": "8", "model.width": "16", "model.heads": "2"}
    return ["--config_path", "mine.yaml", *words_of(settings | changes)]


def test_a_file_in_the_layout_of_xland_trains_algorithm_distillation(root, capsys):
    arrays = write_xland(root / "xland.hdf5")
    run = imported("xland", "xland.hdf5", root)
    assert len(run.split.train_tasks) == 3 and run.config.env.episode_length == 12
    for wanted, found in zip(arrays, histories(run), strict=True):
        np.testing.assert_array_equal(wanted["states"], found["observation"])
        np.testing.assert_array_equal(wanted["actions"], found["action"])
        np.testing.assert_array_equal(wanted["rewards"], found["reward"])
        np.testing.assert_array_equal(wanted["dones"], found["terminated"] | found["truncated"])
        np.testing.assert_array_equal(found["truncated"], wanted["dones"] & (found["time"] == 11))
    assert exit_code(VERBS["train"], train_words(run)) == 0
    capsys.readouterr()
    assert exit_code(VERBS["evaluate"], train_words(run)) == 2
    assert "cannot be stepped" in capsys.readouterr().err


def test_a_data_set_of_minari_that_the_suite_did_not_write_is_one_history(root):
    from minari.data_collector import EpisodeBuffer

    space = gymnasium.spaces.Dict(
        {"place": gymnasium.spaces.Discrete(7), "sight": gymnasium.spaces.Box(-1, 1, (2,))}
    )
    rng, buffers = np.random.default_rng(0), []
    for length in (5, 3, 6, 1):
        flags = np.zeros(length, bool)
        observations = {
            "place": rng.integers(0, 7, length + 1),
            "sight": rng.random((length + 1, 2)).astype(np.float32),
        }
        buffers.append(
            EpisodeBuffer(
                observations=observations,
                actions=rng.integers(0, 3, length),
                rewards=rng.random(length),
                terminations=flags,
                truncations=flags,
            )
        )
    with pytest.warns(UserWarning):
        minari.create_dataset_from_buffers(
            "foreign-v0",
            buffers,
            observation_space=space,
            action_space=gymnasium.spaces.Discrete(3),
        )
    run = imported("minari", "foreign-v0", root)
    (found,) = histories(run)
    places = np.concatenate([buffer.observations["place"][:-1] for buffer in buffers])
    np.testing.assert_array_equal(found["observation-place"][0], places)
    sights = np.concatenate([buffer.observations["sight"][1:] for buffer in buffers])
    np.testing.assert_array_equal(found["next_observation-sight"][0], sights)
    assert np.flatnonzero(found["truncated"][0]).tolist() == [4, 7, 13, 14]
    assert found["time"][0].tolist() == [*range(5), *range(3), *range(6), 0]
    assert run.config.model.encoders == {"place": "factored", "sight": "mlp"}


@pytest.mark.parametrize("name", FORMATS[:2])
def test_parts_and_tasks_of_another_library_come_back(smoke, root, name):
    settings = {
        **{
            "name": "grid",
            "env.id": "MiniGrid-Empty-5x5-v0",
            "env.tasks": "[{seed: 1}, {seed: 2}]",
        },
        **{"env.kwargs": "{observation: index, view: 5, direction: true}", "model.layers": "1"},
        **{"model.encoders": "{image: bag_of_words, direction: table}", "data.history_stride": "1"},
        **{"source.algorithm": f"{HERE}/components.py:Uniform", "source.env_steps": "40"},
        **{"source.num_envs": "2", "split.num_train_tasks": "1", "env.episode_length": "6"},
    }
    run = Run(smoke(root, *words_of(settings)))
    collect(run)
    export_histories(run, name, "grid-v0")
    back = imported(name, "grid-v0", root)
    assert back.config.env == run.config.env and back.split.hash == run.split.hash
    assert back.config.model.encoders == {"direction": "factored", "image": "bag_of_words"}
    (before,), (after,) = histories(run), histories(back)
    assert before.keys() == after.keys() and "next_observation-image" in before
    for field in before:
        np.testing.assert_array_equal(before[field], after[field])
    if name != "minari":
        return
    data = minari.load_dataset("grid-v0")
    env = data.recover_environment()
    assert env.observation_space == data.observation_space and env.action_space == data.action_space
    assert env.get_wrapper_attr("episode_length") == run.config.env.episode_length


def test_parts_nest_in_a_space_as_they_were_split():
    tree = gymnasium.spaces.Dict(
        a=gymnasium.spaces.Tuple(
            [gymnasium.spaces.Discrete(3), gymnasium.spaces.Box(0, 1, (2, 2))]
        ),
        b=gymnasium.spaces.MultiDiscrete([2, 5]),
    )
    tree.seed(0)
    batch = gymnasium.vector.utils.batch_space(tree, 6).sample()
    parts = split_observation(tree, batch)
    again = split_observation(tree, nested(tree, parts))
    assert parts.keys() == again.keys() == {"a-0", "a-1", "b-0", "b-1"}
    for name in parts:
        np.testing.assert_array_equal(parts[name], again[name])


def test_the_world_of_recorded_histories_has_the_parts_that_it_is_told():
    tree = gymnasium.spaces.Dict(
        a=gymnasium.spaces.Dict(x=gymnasium.spaces.Discrete(3)),
        b=gymnasium.spaces.Box(-np.inf, np.inf, (2,), np.float32),
        c=gymnasium.spaces.Box(0, 255, (4, 4, 3), np.uint8),
        d=gymnasium.spaces.MultiBinary(3),
    )
    world = RecordedWorld(observation={"n": 4})
    world.single_observation_space = tree
    parts = observation_parts(world)
    plain = json.loads(json.dumps(describe_parts(parts)))
    assert observation_parts(RecordedWorld(observation=plain)) == parts


def test_the_time_in_an_episode_continues_from_the_chunk_before():
    done = np.array([[0, 0, 1, 0, 0, 1, 0]], bool)
    assert time_in_episode(done, np.array([0])).tolist() == [[0, 1, 2, 0, 1, 2, 0]]
    assert time_in_episode(done, np.array([4])).tolist() == [[4, 5, 6, 0, 1, 2, 0]]


def test_a_source_of_recorded_histories_resumes_where_it_was(run, root, monkeypatch):
    export_histories(run, "xland", "noisy.hdf5")
    back = imported("xland", "noisy.hdf5", root)
    monkeypatch.setattr("ad.exchange.recorded.CHUNK_BYTES", 3 * 3 * 7 * 13)

    def chunks(source) -> list[dict]:
        return [chunk.arrays for chunk in source.run(30)]

    whole = chunks(new_source(back.config, back.split.train_tasks))
    first, second = (new_source(back.config, back.split.train_tasks) for _ in range(2))
    next(first.run(30))
    second.restore(first.state())
    for wanted, found in zip(whole[1:], chunks(second), strict=True):
        for field in wanted:
            np.testing.assert_array_equal(wanted[field], found[field])


def test_an_agent_that_failed_is_still_known_after_a_round_trip(run, root, monkeypatch):
    read = export._manifest
    failed = HistoryStore(run.config).folder(run.split.train_tasks[1])
    monkeypatch.setattr(
        export, "_manifest", lambda path: read(path) | ({STOPPED: 7} if path == failed else {})
    )
    export_histories(run, "xland", "noisy.hdf5")
    back = imported("xland", "noisy.hdf5", root)
    folders = HistoryStore(back.config).folders(back.split.train_tasks)
    assert [load_history(folder).stopped_at for folder in folders] == [None, 7, None]
    source = replace(back.config.source, env_steps=5 * back.config.source.num_envs)
    few = Run.open(replace(back.config, source=source))
    collect(few)  # what each actor did before one stopped
    folders = HistoryStore(few.config).folders(few.split.train_tasks)
    assert [load_history(folder).stopped_at for folder in folders] == [None] * 3


def large_words(**changes: str) -> list[str]:
    small = {
        **{"root": ".", "device": "cpu", "threads": "1", "env.episode_length": "20"},
        **{"source.num_envs": "2", "source.env_steps": "160", "data.context_length": "16"},
        **{"model.layers": "1", "training.steps": "10", "training.batch_size": "2"},
        **{"training.micro_batches": "2", "model.width": "64", "model.feed_forward": "64"},
    }
    experiment = HERE.parent / "configs/xland_large.yaml"
    return ["--config_path", str(experiment), *words_of(small | changes)]


def test_the_large_experiment_trains_on_a_data_set_of_its_layout(root, capsys):
    write_synthetic(root / "histories/xland_large.hdf5", 4, 2, 80, 20)
    for verb in ("collect", "train"):
        assert exit_code(VERBS[verb], large_words()) == 0
    assert "train: 10 steps" in capsys.readouterr().out
    done, solved = np.concatenate(
        [[own["terminated"] | own["truncated"], own["reward"] > 0] for own in histories_in(root)], 1
    )
    assert solved[:, 40:].sum() > solved[:, :40].sum() and done[solved].all()


def histories_in(root: Path) -> list[dict]:
    """The arrays of all histories below `root`."""
    return [{**load_history(path.parent).arrays} for path in root.rglob(MANIFEST)]
