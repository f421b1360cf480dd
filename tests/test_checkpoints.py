"""Checkpoints: what is saved comes back, damage is noticed, and the one before it is there."""

import resource
import shutil
from pathlib import Path

import pytest
import torch

from ad.errors import ConfigError
from ad.runtime.files import read_checked_json, write_checked_json
from ad.training import checkpoints

WEIGHTS = torch.arange(2000, dtype=torch.float32)


@pytest.fixture(scope="module")
def saved(tmp_path_factory) -> Path:
    """A folder with the checkpoints of steps 3, 6 and 9, of which two are kept."""
    folder = tmp_path_factory.mktemp("checkpoints")
    for step in (3, 6, 9):
        content = {"model": {"weight": WEIGHTS + step}, "spec": {"rewards": [0.0, 1.0]}}
        checkpoints.save(folder, step, content)
    return folder


@pytest.fixture
def folder(saved, tmp_path) -> Path:
    """A copy of it, to be damaged."""
    return shutil.copytree(saved, tmp_path / "copy")


def flip(path: Path, place: int = -1) -> None:
    """Change one bit of a file."""
    content = bytearray(path.read_bytes())
    content[place] ^= 1
    path.write_bytes(content)


def test_the_newest_two_are_kept_and_come_back_with_their_steps(saved):
    assert {path.stem for path in saved.iterdir()} == {"step_0000006", "step_0000009"}
    content = checkpoints.load(saved / "step_0000006.pt")
    assert content["step"] == 6 and torch.equal(content["model"]["weight"], WEIGHTS + 6)
    assert checkpoints.newest(saved) == saved / "step_0000009.pt"
    assert checkpoints.load_newest(saved)["step"] == 9


def test_checkpoints_at_multiples_of_a_number_of_train_steps_stay_too(tmp_path):
    for step in (0, 2, 3, 4, 6, 7, 8):
        checkpoints.save(tmp_path, step, {"model": {"weight": WEIGHTS}}, keep_every=3)
    assert checkpoints.steps(tmp_path) == [0, 3, 6, 7, 8]
    assert len(list(tmp_path.iterdir())) == 10
    checkpoints.save(tmp_path, 9, {"model": {"weight": WEIGHTS}})
    assert checkpoints.steps(tmp_path) == [8, 9]


@pytest.mark.parametrize("suffix", [".pt", ".json"])
def test_a_damaged_checkpoint_gives_way_to_the_one_before_it_and_that_is_said(
    folder, suffix, capsys
):
    flip(folder / f"step_0000009{suffix}", 20)
    assert checkpoints.load_newest(folder)["step"] == 6
    (warning,) = capsys.readouterr().err.splitlines()
    assert "step_0000009" in warning and warning.endswith("the one before it is used")


def test_without_any_good_checkpoint_training_is_said_to_begin_again(folder, capsys):
    for path in folder.glob("*.pt"):
        flip(path, 20)
    assert checkpoints.load_newest(folder) is None
    assert capsys.readouterr().err.splitlines()[-1].endswith("training begins again")


def test_a_checkpoint_of_another_version_is_refused_and_kept(folder):
    path = folder / "step_0000009.json"
    write_checked_json(path, read_checked_json(path) | {"format": 1})
    for read in (checkpoints.load_newest, lambda _: checkpoints.load(path.with_suffix(".pt"))):
        with pytest.raises(ConfigError, match="is of another version: train again"):
            read(folder)
    assert path.exists()


def test_weights_that_the_model_does_not_have_are_refused(folder):
    content = checkpoints.load(folder / "step_0000009.pt")
    with pytest.raises(ConfigError, match="of train step 9 has other weights than Linear has now"):
        checkpoints.load_weights(torch.nn.Linear(3, 1), content)


def test_a_checkpoint_that_the_machine_cannot_open_is_not_taken_for_damaged(folder):
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (3, hard))
    try:
        with pytest.raises(OSError, match="Too many open files"):
            checkpoints.load(folder / "step_0000009.pt")
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_a_checkpoint_for_which_there_is_no_room_names_its_file_and_leaves_the_others(folder):
    before = sorted(folder.iterdir())
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, hard))
    try:
        with pytest.raises(OSError, match="File too large") as caught:
            checkpoints.save(folder, 12, {"model": {"weight": WEIGHTS}})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert caught.value.filename == str(folder / "step_0000012.pt")
    assert sorted(folder.iterdir()) == before
    assert checkpoints.load_newest(folder)["step"] == 9


def test_a_save_also_removes_what_a_killed_one_left(folder):
    (folder / "step_0000003.json").write_text("left when its checkpoint was removed already")
    checkpoints.save(folder, 12, {"model": {"weight": WEIGHTS}})
    assert {path.stem for path in folder.iterdir()} == {"step_0000009", "step_0000012"}
