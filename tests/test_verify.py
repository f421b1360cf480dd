"""Verify names what is damaged and makes it again with the same bytes."""

import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from small_run import evaluated_run
from test_checkpoints import flip
from test_resume_collection import hashes

from ad.cli import VERBS, exit_code
from ad.collection.collect import collect
from ad.data.histories import HistoryStore
from ad.evaluation import summary
from ad.runtime.run import Run
from ad.training import checkpoints


@pytest.fixture(scope="module")
def made(smoke, tmp_path_factory):
    """A configuration with histories and two checkpoints; only to be copied."""
    config = smoke(tmp_path_factory.mktemp("made"), "--source.env_steps", "800")
    run = Run.open(config)
    collect(run)
    for step in (10, 20):
        checkpoints.save(run.folder / "checkpoints", step, {"weights": torch.ones(100)})
    return config


@pytest.fixture
def config(made, tmp_path):
    """A copy of it."""
    shutil.copytree(made.root, tmp_path / "copy")
    return replace(made, root=str(tmp_path / "copy"))


@pytest.fixture
def verified(config, capsys):
    """verified(*words): exit code and what `scripts.verify` says about the run."""
    words = ["--config_path", f"{config.root}/logs/smoke/config.yaml", "--root", config.root]

    def run(*more: str) -> tuple[int, str]:
        code = exit_code(VERBS["verify"], [*words, *more])
        return code, "".join(capsys.readouterr())

    return run


def history(config, index: int = 0) -> Path:
    return HistoryStore(config).folder(Run.open(config).split.train_tasks[index])


def test_every_bad_history_and_checkpoint_is_named(config, verified):
    flip(history(config, 1) / "action.npy")
    shutil.rmtree(history(config, 3))
    flip(Run.open(config).folder / "checkpoints" / checkpoints.name(20))
    code, said = verified()
    assert code == 4 and said.endswith("verify: 3 damaged or missing\n")
    assert (
        f"{history(config, 1)} cannot be used" in said
        and f"{history(config, 3)} is missing" in said
    )
    assert checkpoints.name(20) in said and checkpoints.name(10) not in said
    assert str(history(config, 0)) not in said


def test_repair_makes_bad_histories_again_with_the_same_bytes_and_leaves_the_others(
    config, verified
):
    before, folder = hashes(HistoryStore(config).path), history(config, 2)
    age = folder.stat().st_ctime_ns
    flip(history(config, 0) / "reward.npy", 200)
    flip(history(config, 1) / "manifest.json", 30)
    shutil.rmtree(history(config, 4))
    code, said = verified("--repair", "true")
    assert code == 0 and "3 histories collected again" in said
    assert hashes(HistoryStore(config).path) == before
    assert folder.stat().st_ctime_ns == age


def test_damaged_results_are_named_and_repair_leaves_them_to_evaluate(config, verified):
    name = "trajectories.npz"
    run = evaluated_run(config)
    parts = "5 histories, 2 checkpoints and 3 files of results"
    assert verified() == (0, f"verify: {parts} are what was written\n")
    flip(run.folder / name, 40)
    code, said = verified()
    assert code == 4 and f"{run.folder / name} is not what was written" in said
    code, said = verified("--repair", "true")
    assert code == 0 and "`ad evaluate` makes them again" in said
    assert not any((run.folder / name).exists() for name in summary.FILES)
