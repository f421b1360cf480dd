"""A release: the weights come back, any change to it is noticed, and it holds no code."""

import shutil
from pathlib import Path

import pytest
import torch
import yaml
from training_run import train

from ad.errors import ConfigError, CorruptError
from ad.evaluation.evaluate import evaluate, load_model
from ad.exchange.release import FILES, SUMS, load_release, release
from ad.runtime.files import sha256
from ad.runtime.run import Run


@pytest.fixture(scope="module")
def evaluated(experiment) -> Run:
    """A run that is trained and evaluated; only to be read."""
    run = train(experiment(training__precision="float32"))
    evaluate(run)
    return run


@pytest.fixture(scope="module")
def released(evaluated) -> Path:
    """Its release; only to be read."""
    return release(evaluated)


@pytest.fixture
def copy(released, tmp_path) -> Path:
    """A copy of it elsewhere, to be damaged."""
    return shutil.copytree(released, tmp_path / "copy")


@pytest.mark.parametrize("setting", ["env.id", "source.algorithm"])
def test_a_world_and_a_source_that_the_model_does_not_need_are_not_imported(copy, setting):
    imported = copy / "imported"
    (copy / "foreign.py").write_text(f"open({str(imported)!r}, 'w').close()\nclass Foreign: pass\n")
    config = yaml.safe_load((copy / "config.yaml").read_text())
    section, key = setting.split(".")
    config[section][key] = f"{copy / 'foreign.py'}:Foreign"
    (copy / "config.yaml").write_text(yaml.safe_dump(config))
    (copy / SUMS).write_text("".join(f"{sha256(copy / name)}  {name}\n" for name in FILES))
    load_release(copy)
    assert not imported.exists()


def test_the_released_model_gives_the_logits_of_the_trained_one(evaluated, copy):
    model, twin = load_model(evaluated), load_release(copy).model
    names = [*model.spec.padding, "step", "valid"]
    window = {name: torch.zeros((2, 6), dtype=torch.int64) for name in names}
    torch.testing.assert_close(twin(window), model(window), rtol=0, atol=0)


def test_the_card_names_the_world_the_split_and_the_scores(evaluated, released):
    text = (released / "README.md").read_text()
    assert (
        "DarkRoom-v0" in text
        and evaluated.split.hash in text
        and "| model, held-out tasks |" in text
    )


def test_a_sum_for_a_file_outside_the_release_is_refused(copy):
    lines = (copy / SUMS).read_text().replace("config.yaml", "../../x.yaml")
    (copy / SUMS).write_text(lines)
    with pytest.raises(CorruptError, match="does not list its files"):
        load_release(copy)


def test_a_run_without_a_training_is_not_released(experiment):
    with pytest.raises(ConfigError, match=r"scripts\.train"):
        release(Run.open(experiment()))
