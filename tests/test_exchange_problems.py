"""Exports and imports that cannot be made, each with its sentence, and what they leave."""

import importlib.util
import json
from dataclasses import asdict, replace
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace

import gymnasium
import h5py
import numpy as np
import pytest
from exchanged import FORMATS, PLACES, collected_run, imported, words, work_in, write_xland

from ad.cli import VERBS, exit_code
from ad.errors import ConfigError, CorruptError
from ad.exchange import formats
from ad.exchange.export import export_histories
from ad.exchange.formats import SCHEMA, new_format, parse_description
from ad.exchange.minari import Minari
from ad.exchange.minari_reader import MinariReader
from ad.exchange.recorded import RecordedWorld
from ad.exchange.xland import XLand
from ad.runtime.run import Run


@pytest.fixture(autouse=True)
def root(tmp_path, monkeypatch) -> Path:
    return work_in(tmp_path, monkeypatch)


@pytest.fixture(scope="module")
def run(smoke, tmp_path_factory) -> Run:
    return collected_run(smoke, tmp_path_factory.mktemp("collected"))


@pytest.mark.parametrize("name", FORMATS)
def test_another_data_set_is_overwritten_only_when_asked_for(run, root, name, capsys):
    arguments = words(run, name, PLACES[name])
    other = replace(run.config, split=replace(run.config.split, num_train_tasks=2))
    export_histories(Run(other), name, PLACES[name])
    assert exit_code(VERBS["export_histories"], arguments) == 2
    assert "holds other histories: choose another --to" in capsys.readouterr().err
    assert exit_code(VERBS["export_histories"], [*arguments, "--fresh", "true"]) == 0
    assert len(imported(name, PLACES[name], root).split.train_tasks) == 3


@pytest.mark.parametrize("name", FORMATS)
def test_an_interrupted_export_leaves_nothing(run, root, name, monkeypatch):
    def fail(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr("ad.exchange.formats.Export.histories", fail)
    with pytest.raises(KeyboardInterrupt):
        export_histories(run, name, PLACES[name])
    assert not [path for path in root.rglob("*") if path.is_file()]
    assert not formats.new_format(name).exists(PLACES[name])


@pytest.mark.parametrize("name", FORMATS)
def test_a_missing_extra_is_a_sentence(run, name, monkeypatch, capsys):
    package = {"minari": "minari", "parquet": "pyarrow", "xland": "h5py"}[name]
    found = importlib.util.find_spec
    monkeypatch.setattr("envs.extras.find_spec", lambda n: None if n == package else found(n))
    assert exit_code(VERBS["export_histories"], words(run, name, PLACES[name])) == 2
    sentence = f'not installed ({package}): pip install "algorithm-distillation[{name}]"'
    assert sentence in capsys.readouterr().err


class Words(gymnasium.Space):
    """A space that Minari does not know."""

    def __init__(self):
        super().__init__((), np.int64)


def test_observations_that_minari_has_no_space_for_are_refused():
    assert Minari().problem(SimpleNamespace(single_observation_space=Words()))
    space = gymnasium.spaces.Discrete(3)
    assert not Minari().problem(SimpleNamespace(single_observation_space=space))


@pytest.mark.parametrize(
    "observation", [{"n": 257}, {"shape": [3], "dtype": "float32"}, {"a": {"n": 3}, "b": {"n": 3}}]
)
def test_observations_that_do_not_fit_into_the_arrays_of_xland_are_refused(observation):
    assert XLand().problem(RecordedWorld(observation=observation))
    assert not XLand().problem(RecordedWorld(observation={"n": 256}))


@pytest.mark.parametrize("name", FORMATS)
def test_a_damaged_data_set_is_a_sentence(run, root, name, capsys):
    export_histories(run, name, PLACES[name])
    path = next(path for path in root.rglob("*") if path.match("*.hdf5") or path.match("data/*"))
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    arguments = ["--format", name, "--from", PLACES[name], "--to", "mine.yaml", "--root", "."]
    assert exit_code(VERBS["import_histories"], arguments) == 4
    assert "cannot be read" in capsys.readouterr().err


def test_the_world_of_a_data_set_is_made_only_if_it_is_of_the_suite_or_trusted(
    run, root, monkeypatch, capsys
):
    export_histories(run, "parquet", PLACES["parquet"])
    ran, contents = root / "ran", new_format("parquet").open(PLACES["parquet"]).contents
    (root / "room.py").write_text(f"open({str(ran)!r}, 'w')\n")

    def exit_code_of(*words: str, **env) -> int:
        described = replace(contents.description, env=contents.description.env | env)
        opened = SimpleNamespace(contents=replace(contents, description=described), lost="")
        new = SimpleNamespace(open=lambda place: opened)
        monkeypatch.setattr("ad.exchange.imports.new_format", lambda name: new)
        places = ["--format", "parquet", "--from", PLACES["parquet"], "--to", "mine.yaml"]
        return exit_code(VERBS["import_histories"], [*places, *words])

    assert exit_code_of(id=f"{root}/room.py:Room") == 2 and not ran.exists()
    assert "room.py:Room', whose code would run" in capsys.readouterr().err
    assert exit_code_of("--trust-code", "true", id=f"{root}/room.py:Room") == 2 and ran.exists()
    for env in ({"id": "DarkRoom-v0", "kwargs": {"sise": 3}}, {"idd": 3}, {"kwargs": [3]}):
        assert exit_code_of(**env) == 2  # no traceback
        assert "describes cannot be made: " in capsys.readouterr().err
    text = json.dumps({"schema": SCHEMA, **asdict(contents.description), "env": []})
    with pytest.raises(CorruptError, match="is damaged: env, split and source"):
        parse_description(text, "here")


@pytest.mark.parametrize(
    "change", [lambda file: file.__delitem__("1/dones"), lambda file: file.move("0", "x")]
)
def test_a_file_of_another_layout_is_refused(root, change, capsys):
    write_xland(root / "xland.hdf5")
    with h5py.File("xland.hdf5", "a") as file:
        change(file)
    arguments = ["--format", "xland", "--from", "xland.hdf5", "--to", "mine.yaml"]
    assert exit_code(VERBS["import_histories"], arguments) == 2
    assert "xland.hdf5" in capsys.readouterr().err


def test_an_import_overwrites_no_other_file_and_needs_a_name_of_a_run(root, capsys):
    write_xland(root / "xland.hdf5")
    contents = {"mine.yaml": b"name: precious\n", "binary.yaml": b"\xff\x00"}
    for name, content in contents.items():
        (root / name).write_bytes(content)
    for name in [*contents, "my room.yaml"]:
        arguments = ["--format", "xland", "--from", "xland.hdf5", "--to", name]
        assert exit_code(VERBS["import_histories"], arguments) == 2
        assert capsys.readouterr().err.count("\n") == 1
    assert all((root / name).read_bytes() == content for name, content in contents.items())
    assert not (root / "my room.yaml").exists()


@pytest.mark.parametrize(
    ("field", "wrong", "what"),
    [("action", -1, "uint"), ("observation", 2**16, "uint"), ("observation", 99, "a space of 9 ")],
)
def test_values_that_would_wrap_round_are_refused(run, root, field, wrong, what, monkeypatch):
    export_histories(run, "minari", PLACES["minari"])
    read = MinariReader.read

    def damaged(*arguments):
        arrays = read(*arguments)
        arrays[field].flat[3] = wrong
        return arrays

    monkeypatch.setattr(MinariReader, "read", damaged)
    with pytest.raises(ConfigError, match=f"has {wrong} as {field}, which {what}"):
        imported("minari", PLACES["minari"], root)


def test_leftovers_of_a_killed_export_are_removed(run, root):
    left = [root / ".noisy.hdf5.999999.tmp", root / "minari/rooms/noisy-v0/.data.999999.tmp/x"]
    left += [root / ".noisy.999999.tmp/x"] if find_spec("pyarrow") else []
    for path in left:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("half a file")
    for name, place in PLACES.items():
        if name != "parquet" or find_spec("pyarrow"):
            export_histories(run, name, place)
    assert not any(path.exists() for path in left)


def test_a_reward_beyond_float16_is_refused_by_xland(run, monkeypatch, capsys):
    read = formats.load_history
    monkeypatch.setattr(formats, "load_history", lambda folder: _Rich(read(folder)))
    assert exit_code(VERBS["export_histories"], words(run, "xland", "noisy.hdf5")) == 2
    assert "rewards as float16, which has no 100000" in capsys.readouterr().err
    assert not Path("noisy.hdf5").exists()


class _Rich:
    """A history with rewards of 100,000."""

    def __init__(self, history):
        self.arrays = {**history.arrays}
        self.arrays["reward"] = np.full_like(self.arrays["reward"], 1e5)
