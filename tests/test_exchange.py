"""Histories in other formats: what a round trip keeps, what it says, and training on imports."""

import importlib.util
import json
import resource
import shutil
from dataclasses import replace
from pathlib import Path

import gymnasium
import h5py
import minari
import numpy as np
import pytest
from training_run import SHORT, words_of

from ad.cli import VERBS, exit_code
from ad.collection.collect import collect
from ad.collection.job import new_source
from ad.config.parser import load, load_file
from ad.data.histories import Histories
from ad.data.manifest import STOPPED
from ad.data.store import load_history
from ad.errors import MachineError
from ad.exchange import export, formats
from ad.exchange import minari as minari_format
from ad.exchange.export import export_histories
from ad.exchange.formats import nested, time_in_episode
from ad.exchange.hdf5 import new_file
from ad.exchange.imports import import_histories
from ad.exchange.recorded import RecordedWorld, describe_parts
from ad.exchange.xland import XLand
from ad.registry import EXPORTS
from ad.runtime.run import Run
from envs.spaces import observation_parts, split_observation

HERE = Path(__file__).parent
PLACES = {"minari": "rooms/noisy-v0", "xland": "noisy.hdf5"}
LOST = {"minari": (), "xland": ("next_observation", "terminated", "truncated")}


@pytest.fixture(autouse=True)
def root(tmp_path, monkeypatch) -> Path:
    """The folder in which a test works, and in which Minari keeps its data sets."""
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path / "minari"))
    monkeypatch.chdir(tmp_path)
    return tmp_path


SOURCE = {
    **{"name": "source", "source.algorithm": "noise_distillation", "source.num_envs": "3"},
    **{"source.env_steps": "90", "split.num_train_tasks": "3", "data.context_length": "8"},
}


@pytest.fixture(scope="module")
def run(smoke, tmp_path_factory) -> Run:
    """A run whose histories are collected: three tasks with three actors of 30 transitions."""
    run = Run(smoke(tmp_path_factory.mktemp("collected"), *words_of(SOURCE)))
    collect(run)
    return run


def histories(run: Run) -> list[dict]:
    """The arrays of the histories of the train tasks, in their order."""
    folders = Histories(run.config).folders(run.split.train_tasks)
    return [{**load_history(folder).arrays} for folder in folders]


def imported(name: str, place: str, root: Path) -> Run:
    import_histories(name, place, root / "mine.yaml", str(root))
    return Run(load_file(root / "mine.yaml", root=str(root)))


@pytest.mark.parametrize("name", EXPORTS)
def test_a_round_trip_keeps_what_the_format_holds(run, root, name):
    export_histories(run, name, PLACES[name])
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


@pytest.mark.parametrize("name", EXPORTS)
def test_the_same_command_says_that_it_is_done(run, root, name, capsys):
    export_histories(run, name, PLACES[name])
    assert "without" in capsys.readouterr().out
    files = {path: path.stat().st_mtime_ns for path in root.rglob("*") if path.is_file()}
    export_histories(run, name, PLACES[name])
    assert "already done" in capsys.readouterr().out
    imported(name, PLACES[name], root)
    assert "3 of 3 histories imported now" in capsys.readouterr().out
    imported(name, PLACES[name], root)
    assert "0 of 3 histories imported now" in capsys.readouterr().out
    assert all(path.stat().st_mtime_ns == time for path, time in files.items())
    assert not [path for path in root.rglob("*") if path.name.endswith(".tmp")]


def words(run: Run, name: str, place: str) -> list[str]:
    """The words of a command that exports the histories of `run`."""
    settings = SOURCE | {"root": run.config.root, "device": "cpu", "threads": "1"}
    smoke = HERE.parent / "configs" / "smoke.yaml"
    chosen = ["--format", name, "--to", place, "--config_path", str(smoke)]
    return [*chosen, *words_of(settings)]


@pytest.mark.parametrize("name", EXPORTS)
def test_another_data_set_is_overwritten_only_when_asked_for(run, root, name, capsys):
    arguments = words(run, name, PLACES[name])
    other = replace(run.config, split=replace(run.config.split, num_train_tasks=2))
    export_histories(Run(other), name, PLACES[name])
    assert exit_code(VERBS["export_histories"], arguments) == 2
    assert "holds other histories: choose another --to" in capsys.readouterr().err
    assert exit_code(VERBS["export_histories"], [*arguments, "--fresh", "true"]) == 0
    assert len(imported(name, PLACES[name], root).split.train_tasks) == 3


@pytest.mark.parametrize("name", EXPORTS)
def test_an_interrupted_export_leaves_nothing(run, root, name, monkeypatch):
    def fail(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr("ad.exchange.export._LoadedHistories.__iter__", fail)
    with pytest.raises(KeyboardInterrupt):
        export_histories(run, name, PLACES[name])
    assert not [path for path in root.rglob("*") if path.is_file()]
    assert not formats.new_format(name).exists(PLACES[name])


def test_minari_loads_the_episodes_in_learning_order_with_their_metadata(run):
    export_histories(run, "minari", "rooms/noisy-v0")
    data = minari.load_dataset("rooms/noisy-v0")
    assert data.total_steps == 3 * 90
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


def test_what_minari_loads_is_in_its_spaces_and_its_environment_can_be_made(run):
    export_histories(run, "minari", "rooms/noisy-v0")
    data = minari.load_dataset("rooms/noisy-v0")
    for episode in data.iterate_episodes(range(10)):
        assert all(map(data.observation_space.contains, episode.observations))
        assert all(map(data.action_space.contains, episode.actions))
    env = data.recover_environment()
    assert env.observation_space == data.observation_space and env.action_space == data.action_space
    assert env.get_wrapper_attr("episode_length") == run.config.env.episode_length


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


def write_xland(path: Path, num_tasks: int = 3, steps: int = 60, length: int = 12) -> list[dict]:
    """A file in the layout of the published data sets, with episodes that end early or in time."""
    rng, arrays = np.random.default_rng(0), []
    with h5py.File(path, "w") as file:
        for number in range(num_tasks):
            own = {
                "states": rng.integers(0, 169, (2, steps, 5, 5), dtype=np.uint8),
                "actions": rng.integers(0, 6, (2, steps), dtype=np.uint8),
                "rewards": rng.random((2, steps)).astype(np.float16),
                "dones": np.zeros((2, steps), bool),
            }
            own["dones"][:, length - 1 :: length] = True
            own["dones"][:, 4] = own["dones"][:, length + 4] = True
            own["expert_actions"] = own["actions"]
            group = file.create_group(str(number))
            group.attrs.update({"env-id": "XLand-MiniGrid-R1-9x9", "benchmark-id": "trivial-1m"})
            group.attrs["ruleset-id"] = 100 + number
            for name, values in own.items():
                group.create_dataset(name, data=values, compression="gzip")
            arrays.append(own)
    return arrays


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
    log = [json.loads(line) for line in (root / "logs/mine/metrics.jsonl").open()]
    losses = [line["train/loss"] for line in log if "train/loss" in line]
    assert len(losses) == 8 and np.isfinite(losses).all()
    assert [line for line in log if "train/held_out_actor_loss" in line]
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
    world = RecordedWorld(observation={"": {"n": 4}})
    world.single_observation_space = tree
    parts = observation_parts(world)
    plain = json.loads(json.dumps(describe_parts(parts)))
    assert observation_parts(RecordedWorld(observation=plain)) == parts


def test_the_time_in_an_episode_continues_from_the_chunk_before():
    done = np.array([[0, 0, 1, 0, 0, 1, 0]], bool)
    assert time_in_episode(done, np.array([0])).tolist() == [[0, 1, 2, 0, 1, 2, 0]]
    assert time_in_episode(done, np.array([4])).tolist() == [[4, 5, 6, 0, 1, 2, 0]]


@pytest.mark.parametrize("name", EXPORTS)
def test_histories_are_read_in_chunks_of_any_size(run, root, name, monkeypatch):
    export_histories(run, name, PLACES[name])
    monkeypatch.setattr("ad.exchange.recorded.CHUNK_BYTES", 3 * 3 * 20 * 13)
    back = imported(name, PLACES[name], root)
    for before, after in zip(histories(run), histories(back), strict=True):
        for field in before.keys() - {*LOST[name]}:
            np.testing.assert_array_equal(before[field], after[field])


@pytest.mark.parametrize("name", EXPORTS)
def test_a_missing_extra_is_a_sentence(run, name, monkeypatch, capsys):
    package = "minari" if name == "minari" else "h5py"
    found = importlib.util.find_spec
    monkeypatch.setattr(formats, "find_spec", lambda n: None if n == package else found(n))
    assert exit_code(VERBS["export_histories"], words(run, name, PLACES[name])) == 2
    assert capsys.readouterr().err == (
        f"the format {name} needs packages that are not installed ({package}): "
        f'pip install -e ".[{name}]"\n'
    )


def test_an_unknown_format_is_a_sentence(run, capsys):
    assert exit_code(VERBS["export_histories"], words(run, "minary", "x-v0")) == 2
    assert "did you mean minari" in capsys.readouterr().err


class Words(gymnasium.Space):
    """A space that Minari does not know."""

    def __init__(self):
        super().__init__((), np.int64)


def test_observations_that_minari_has_no_space_for_are_a_sentence(run, monkeypatch, capsys):
    monkeypatch.setattr(Run, "world", run.world.__class__(num_envs=1, size=3))
    monkeypatch.setattr(run.world, "single_observation_space", Words())
    assert minari_format.Minari().problem(run.world).startswith("has no space for the observations")


@pytest.mark.parametrize(
    ("world", "problem"),
    [
        ({"": {"n": 300}}, "from 0 to 255, not Discrete(300)"),
        ({"": {"shape": [3], "dtype": "float32"}}, "not an array [3] of float32"),
        ({"a": {"n": 3}, "b": {"n": 3}}, "not the parts a, b"),
    ],
)
def test_observations_that_xland_has_no_room_for_are_a_sentence(world, problem):
    assert problem in XLand().problem(RecordedWorld(observation=world))


@pytest.mark.parametrize("name", EXPORTS)
def test_a_data_set_of_another_schema_is_a_sentence(run, name, root, capsys, monkeypatch):
    monkeypatch.setattr(formats, "SCHEMA", 7)
    export_histories(run, name, PLACES[name])
    monkeypatch.undo()
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(root / "minari"))
    arguments = ["--format", name, "--from", PLACES[name], "--to", "mine.yaml", "--root", str(root)]
    if name == "xland":
        arguments[3] = str(root / PLACES[name])
    assert exit_code(VERBS["import_histories"], arguments) == 2
    assert "has schema 7; this version reads schema 1" in capsys.readouterr().err
    assert not (root / "mine.yaml").exists()


def damage(root: Path, name: str) -> None:
    """Cut the file of the data set in half."""
    (path,) = [*root.rglob("*.hdf5")]
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


@pytest.mark.parametrize("name", EXPORTS)
def test_a_damaged_data_set_is_a_sentence(run, root, name, capsys):
    export_histories(run, name, PLACES[name])
    damage(root, name)
    arguments = ["--format", name, "--from", PLACES[name], "--to", "mine.yaml", "--root", "."]
    assert exit_code(VERBS["import_histories"], arguments) == 4
    assert "cannot be read" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (lambda file: file.__delitem__("1/dones"), "group 1 of xland.hdf5 has no dones"),
        (lambda file: file.move("0", "x"), "no groups 0, 1"),
        (lambda file: file.__delitem__("2/states"), "has no states"),
    ],
)
def test_a_file_of_another_layout_is_a_sentence(root, change, problem, capsys):
    write_xland(root / "xland.hdf5")
    with h5py.File("xland.hdf5", "a") as file:
        change(file)
    arguments = ["--format", "xland", "--from", "xland.hdf5", "--to", "mine.yaml"]
    assert exit_code(VERBS["import_histories"], arguments) == 2
    assert problem in capsys.readouterr().err


def test_there_is_no_data_set_where_there_is_none(capsys):
    for name, place in PLACES.items():
        arguments = ["--format", name, "--from", place, "--to", "mine.yaml"]
        assert exit_code(VERBS["import_histories"], arguments) == 2
    said = capsys.readouterr().err
    assert "there is no file noisy.hdf5" in said and "no local data set rooms/noisy-v0" in said


def test_an_id_that_minari_cannot_have_is_a_sentence(run, capsys):
    for place in ("noisy", "rooms/no.isy-v0"):
        assert exit_code(VERBS["export_histories"], words(run, "minari", place)) == 2
        assert f"'{place}' is no id of a data set of Minari" in capsys.readouterr().err


def test_an_experiment_of_ones_own_is_not_overwritten(root, capsys):
    write_xland(root / "xland.hdf5")
    (root / "mine.yaml").write_text("name: precious\n")
    arguments = ["--format", "xland", "--from", "xland.hdf5", "--to", "mine.yaml"]
    assert exit_code(VERBS["import_histories"], arguments) == 2
    assert "mine.yaml holds another experiment" in capsys.readouterr().err
    assert (root / "mine.yaml").read_text() == "name: precious\n"


def test_more_than_the_data_set_has_is_a_sentence(root, capsys):
    write_xland(root / "xland.hdf5")
    run = imported("xland", "xland.hdf5", root)
    arguments = ["--config_path", "mine.yaml", "--root", str(root)]
    actors = {"name": "a", "source.num_envs": "4", "source.env_steps": "240"}
    steps, length = {"name": "b", "source.env_steps": "2000"}, {"env.episode_length": "9"}
    for changes in (actors, steps, length):
        assert exit_code(VERBS["collect"], [*arguments, *words_of(changes)]) == 2
    said = capsys.readouterr().err
    assert "source.num_envs is 4, but xland.hdf5 has 2 actors" in said
    assert "asks for 1000 transitions of each actor" in said
    assert "more than env.episode_length (9) steps" in said
    assert load([*arguments, "--source.env_steps", "24"]).config.env == run.config.env


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
    failed = Histories(run.config).folder(run.split.train_tasks[1])
    monkeypatch.setattr(
        export, "_manifest", lambda path: read(path) | ({STOPPED: 7} if path == failed else {})
    )
    export_histories(run, "xland", "noisy.hdf5")
    back = imported("xland", "noisy.hdf5", root)
    folders = Histories(back.config).folders(back.split.train_tasks)
    assert [load_history(folder).stopped_at for folder in folders] == [None, 7, None]


def test_leftovers_of_a_killed_export_are_removed(run, root):
    left = [root / ".noisy.hdf5.999999.tmp", root / "minari/rooms/noisy-v0/.data.999999.tmp/x"]
    for path in left:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("half a file")
    for name, place in PLACES.items():
        export_histories(run, name, place)
    assert not any(path.exists() for path in left)


def test_a_file_that_is_too_large_for_the_disk_is_an_error_and_leaves_nothing(root):
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2**16, limits[1]))
    try:
        with pytest.raises(OSError, match="File too large"), new_file(root / "x.hdf5") as (file, _):
            file["x"] = np.zeros(2**18, np.uint8)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert not list(root.iterdir())


def test_a_data_set_of_minari_that_does_not_fit_the_disk_is_a_sentence(run, root, monkeypatch):
    usage = shutil.disk_usage(root)._replace(free=1000)
    monkeypatch.setattr("ad.runtime.files.shutil.disk_usage", lambda path: usage)
    with pytest.raises(MachineError, match=r"the data set rooms/noisy-v0 needs .* MB"):
        export_histories(run, "minari", "rooms/noisy-v0")
    assert not [path for path in root.rglob("*") if path.is_file()]


def test_minari_takes_no_more_room_than_was_asked_for(run, root):
    export_histories(run, "minari", "rooms/noisy-v0")
    (path,) = root.rglob("*.hdf5")
    folders = Histories(run.config).folders(run.split.train_tasks)
    loaded = export._LoadedHistories(run.split.train_tasks, folders)
    needed = minari_format._bytes_needed(loaded, run.world)
    assert needed / 2 < path.stat().st_size < needed
