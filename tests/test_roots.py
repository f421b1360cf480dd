"""A dataset whose histories lie in several roots, as on several disks."""

import shutil
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from ad.cli import VERBS, exit_code
from ad.collection.collect import collect
from ad.config.schema import Experiment, config_hash, dump
from ad.data import verified
from ad.data.histories import Histories
from ad.data.load import load_dataset
from ad.data.manifest import MANIFEST
from ad.data.store import HistoryWriter
from ad.runtime.files import read_checked_json, write_checked_json
from ad.runtime.locks import locked
from ad.runtime.run import Run


@pytest.fixture
def config(collected, tmp_path) -> Experiment:
    """An experiment whose histories lie in two roots in turn."""
    whole = collected("roots")
    roots = [tmp_path / name for name in ("first", "second")]
    moved = [Histories(replace(whole, root=str(root))) for root in roots]
    for number, task in enumerate(Run(whole).split.train_tasks):
        shutil.copytree(Histories(whole).folder(task), moved[number % 2].folder(task))
    data = replace(whole.data, extra_roots=[str(roots[1])])
    return replace(whole, root=str(roots[0]), data=data)


def said_by(verb: str, config: Experiment, capsys, *words: str) -> tuple[int, str]:
    path = Path(config.root) / "experiment.yaml"
    path.write_text(dump(config))
    code = exit_code(VERBS[verb], ["--config_path", str(path), *words])
    return code, "".join(capsys.readouterr())


def test_histories_in_two_roots_are_one_dataset(collected, config, monkeypatch):
    monkeypatch.setattr(verified, "CLOCK_TICK", 0)  # the histories were written just now
    whole = collected("roots")
    assert config_hash(config) == config_hash(whole)
    datasets = [load_dataset(Run(each)) for each in (whole, config)]
    assert datasets[0].spec == datasets[1].spec
    for one, other in zip(*(dataset.histories for dataset in datasets), strict=True):
        assert tuple(one.task) == tuple(other.task)
        for name in one.arrays:
            np.testing.assert_array_equal(one.arrays[name], other.arrays[name])
    assert all((path / verified.VERIFIED).exists() for path in Histories(config).paths)


def test_only_histories_that_are_in_no_root_are_collected(config, capsys):
    run = Run(config)
    for task in run.split.train_tasks[:2]:  # one in each root
        shutil.rmtree(Histories(config).folder(task))
    code, said = said_by("train", config, capsys)
    assert code == 2 and "2 train tasks have no history: run scripts.collect first" in said
    assert collect(run) == 2
    for task in run.split.train_tasks[:2]:
        assert Histories(config).folder(task).is_relative_to(config.root)
    code, said = said_by("verify", config, capsys)
    assert code == 0 and f"verify: {len(run.split.train_tasks)} histories" in said


def rewritten(folder: Path, **changes) -> None:
    """Change entries of the manifest of a history, as another version would have written them."""
    manifest = read_checked_json(folder / MANIFEST)
    write_checked_json(folder / MANIFEST, manifest | changes)


@pytest.mark.parametrize("change", [{"schema": 1}, {"env_steps": 1}])
def test_a_history_in_an_extra_root_that_is_out_of_date_is_replaced(config, change, capsys):
    run = Run(config)
    in_root, in_extra, *_ = Histories(config).folders(run.split.train_tasks)
    for folder in (in_root, in_extra):
        rewritten(folder, **change)
    assert collect(run) == 2
    assert not in_extra.exists() and in_extra.parent.exists()
    assert collect(run) == 0
    assert said_by("verify", config, capsys)[0] == 0


def test_a_collection_that_is_killed_while_it_publishes_leaves_no_two_histories(
    config, monkeypatch
):
    run = Run(config)
    in_extra = Histories(config).folder(run.split.train_tasks[1])
    rewritten(in_extra, env_steps=1)
    with monkeypatch.context() as patched, pytest.raises(SystemExit):
        patched.setattr(HistoryWriter, "close", lambda *arguments: sys.exit())
        collect(run)
    assert not in_extra.exists()
    assert collect(run) == 1 and collect(run) == 0


@pytest.mark.parametrize("words", [("--fresh", "true"), ("--repair", "true")])
def test_what_is_removed_from_an_extra_root_is_locked(config, words, capsys):
    in_extra = Histories(config).folder(Run(config).split.train_tasks[1])
    rewritten(in_extra, env_steps=1)
    verb = "collect" if words[0] == "--fresh" else "verify"
    with locked(in_extra.parent):
        code, said = said_by(verb, config, capsys, *words)
        assert code == 3 and f"another process is writing to {in_extra.parent}" in said
        assert in_extra.exists()
    assert said_by(verb, config, capsys, *words)[0] == 0
    assert not in_extra.exists()


def test_an_extra_root_that_keeps_its_histories_is_not_locked(config):
    run = Run(config)
    shutil.rmtree(Histories(config).folder(run.split.train_tasks[0]))
    with locked(Histories(config).paths[1]):
        assert collect(run) == 1


def test_a_root_that_is_an_extra_root_too_counts_once(config, tmp_path):
    second = replace(config, root=str(tmp_path / "first/../second"))
    histories = Histories(second)
    assert histories.paths == [histories.path]
    assert all(histories.folder(task) for task in Run(second).split.train_tasks)
    more = replace(config.data, extra_roots=[*config.data.extra_roots, config.root])
    assert Histories(replace(config, data=more)).paths == Histories(config).paths


@pytest.mark.parametrize("verb", ["train", "collect", "verify"])
def test_a_task_with_histories_in_two_roots_is_a_sentence(config, verb, capsys):
    first, second = Histories(config).folders(Run(config).split.train_tasks[:2])
    shutil.copytree(second, first.parent / second.name)
    code, said = said_by(verb, config, capsys)
    assert code == 2 and said.count("\n") == 1
    assert f"has two histories, {first.parent / second.name} and {second}: remove one" in said


@pytest.mark.parametrize(
    ("roots", "problem"),
    [
        ('["/no/such/folder"]', "must list existing folders, not '/no/such/folder'"),
        ('["ROOT"]', "must list folders that differ from one another and from root"),
        ("/tmp", "data.extra_roots (command line) must be a list whose entries are each text"),
    ],
)
def test_roots_that_cannot_be_are_a_sentence(config, roots, problem, capsys):
    words = ["--data.extra_roots", roots.replace("ROOT", f"{config.root}/../first")]
    code, said = said_by("train", config, capsys, *words)
    assert code == 2 and problem in said
