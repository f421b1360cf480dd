"""Verify names what is damaged and makes it again with the same bytes."""

import hashlib
import os
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from small_run import evaluated_run

from ad.cli import VERBS, exit_code
from ad.collection.collect import collect, collect_tasks
from ad.data.histories import Histories
from ad.evaluation import summary
from ad.runtime.run import Run
from ad.training import checkpoints


def hashes(folder: Path) -> dict[str, str]:
    """SHA-256 of every file below `folder`, by its path."""
    files = [path for path in sorted(folder.rglob("*")) if path.is_file()]
    return {str(path): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


@pytest.fixture(scope="module")
def made(smoke, tmp_path_factory):
    """A row with histories and two checkpoints; only to be copied."""
    row = smoke(tmp_path_factory.mktemp("made"), "--source.env_steps", "800")
    run = Run.open(row)
    collect(run)
    for step in (10, 20):
        checkpoints.save(run.folder / "checkpoints", step, {"weights": torch.ones(100)})
    return row


@pytest.fixture
def row(made, tmp_path):
    """A copy of it."""
    shutil.copytree(made.root, tmp_path / "copy")
    return replace(made, root=str(tmp_path / "copy"))


@pytest.fixture
def verified(row, capsys):
    """verified(*words): exit code and what `scripts.verify` says about the row."""
    words = ["--config_path", f"{row.root}/logs/smoke/config.yaml", "--root", row.root]

    def run(*more: str) -> tuple[int, str]:
        code = exit_code(VERBS["verify"], [*words, *more])
        return code, "".join(capsys.readouterr())

    return run


def whole_with(histories: int, results: int = 0) -> str:
    parts = f"{histories} histories, 2 checkpoints and {results} files of results"
    return f"verify: {parts} are what was written\n"


def unit(row, index: int = 0) -> Path:
    return Histories(row).folder(Run.open(row).split.train_tasks[index])


def flip(path: Path, place: int = -1) -> None:
    content = bytearray(path.read_bytes())
    content[place] ^= 1
    path.write_bytes(content)


def test_what_is_whole_is_said_to_be(verified):
    assert verified() == (0, whole_with(5))


def test_every_bad_unit_and_checkpoint_is_named(row, verified):
    flip(unit(row, 1) / "action.npy")
    shutil.rmtree(unit(row, 3))
    flip(Run.open(row).folder / "checkpoints" / checkpoints.name(20))
    code, said = verified()
    assert code == 4 and said.endswith("verify: 3 damaged or missing\n")
    assert f"{unit(row, 1)} cannot be used" in said and f"{unit(row, 3)} is missing" in said
    assert checkpoints.name(20) in said and checkpoints.name(10) not in said
    assert str(unit(row, 0)) not in said


def test_verify_changes_nothing_by_itself(row, verified):
    flip(unit(row) / "action.npy")
    before = hashes(Path(row.root))
    verified()
    assert hashes(Path(row.root)) == before


def test_repair_makes_bad_units_again_with_the_same_bytes_and_leaves_the_others(row, verified):
    before, folder = hashes(Histories(row).path), unit(row, 2)
    age = folder.stat().st_ctime_ns
    flip(unit(row, 0) / "reward.npy", 200)
    flip(unit(row, 1) / "unit.json", 30)
    shutil.rmtree(unit(row, 4))
    code, said = verified("--repair", "true")
    assert code == 0 and "3 histories collected again" in said
    assert hashes(Histories(row).path) == before
    assert folder.stat().st_ctime_ns == age


def test_repair_removes_a_bad_checkpoint_and_keeps_the_good_one(row, verified):
    flip(Run.open(row).folder / "checkpoints" / checkpoints.name(20))
    code, said = verified("--repair", "true")
    assert code == 0 and "1 checkpoints removed" in said
    kept = os.listdir(Run.open(row).folder / "checkpoints")
    assert sorted(kept) == ["step_0000010.json", "step_0000010.pt"]


def of_another_split_and_seed(row) -> list[Path]:
    """Collect another split's and another source seed's histories; the folders only they have."""
    before = set(Histories(row).path.iterdir())
    others = (
        replace(row, split=replace(row.split, split_seed=1)),
        replace(row, source=replace(row.source, source_seed=1)),
    )
    for other in others:
        collect_tasks(Histories(other), Run(other).split.train_tasks)
    return sorted(set(Histories(row).path.iterdir()) - before)


def test_histories_of_other_splits_and_seeds_are_verified_and_repaired_too(row, verified):
    others = of_another_split_and_seed(row)
    before = hashes(Histories(row).path)
    assert verified() == (0, whole_with(5 + len(others)))
    for folder in others:
        flip(folder / "time.npy")
    code, said = verified()
    assert code == 4 and all(f"{folder} cannot be used" in said for folder in others)
    code, said = verified("--repair", "true")
    assert code == 0 and f"{len(others)} histories collected again" in said
    assert hashes(Histories(row).path) == before


def test_a_history_of_a_task_that_the_world_has_not_is_removed_by_repair(row, verified):
    stranger = shutil.copytree(unit(row), Histories(row).path / "task_77-7_seed_0")
    code, said = verified()
    assert code == 4 and f"{stranger} is another one, by its task" in said
    assert verified("--repair", "true")[0] == 0
    assert not stranger.exists()


@pytest.mark.parametrize("name", ["results.csv", "trajectories.npz", "results.json"])
def test_damaged_results_are_named_and_repair_leaves_them_to_evaluate(row, verified, name):
    run = evaluated_run(row)
    assert verified() == (0, whole_with(5, results=3))
    flip(run.folder / name, 40)
    code, said = verified()
    assert code == 4 and f"{run.folder / name} is not what was written" in said
    code, said = verified("--repair", "true")
    assert code == 0 and "scripts.evaluate makes them again" in said
    assert not any((run.folder / name).exists() for name in summary.FILES)


def test_a_history_under_another_ones_name_is_found_and_collected_again(row, verified):
    before = hashes(Histories(row).path)
    shutil.rmtree(unit(row, 0))
    shutil.copytree(unit(row, 1), unit(row, 0))
    code, said = verified()
    assert code == 4 and "is another one, by its task" in said
    assert collect(Run.open(row)) == 1
    assert hashes(Histories(row).path) == before
