"""A run takes no other configuration but its own, and none that is not exactly what it says."""

import pytest

from ad.errors import ConfigError
from ad.runtime.run import Run


@pytest.fixture
def begun(smoke, tmp_path):
    """begun(*words): the run of the smoke experiment with options; its folder is there already."""
    Run.open(smoke(tmp_path, "--name", "x"))
    return lambda *words, fresh=False: Run.open(smoke(tmp_path, "--name", "x", *words), fresh)


@pytest.mark.parametrize(
    ("words", "difference"),
    [
        ("--training.learning_rate 1e-4", "training.learning_rate: 0.003 -> 0.0001"),
        ("--split.held_out [[0,0]]", "split.held_out: null -> [[0, 0]]"),
        ("--env.kwargs.start random", "env.kwargs.start: not set"),
        ("--source.settings.hidden 8", "source.settings.hidden: 128 -> 8"),
        ("--method.name expert_distillation", "method.name: 'algorithm_distill"),
    ],
)
def test_a_changed_setting_that_affects_results_is_refused_with_the_difference(
    begun, words, difference
):
    with pytest.raises(ConfigError) as caught:
        begun(*words.split())
    assert difference in str(caught.value)


@pytest.mark.parametrize(
    "words", ["--threads 2", "--training.checkpoint_every 7", "--evaluation.action greedy"]
)
def test_a_setting_that_changes_no_weight_may_differ_and_is_the_new_one(begun, words):
    option, value = words.split()
    config = begun(option, value).config
    for name in option[2:].split("."):
        config = getattr(config, name)
    assert str(config) == value


def test_a_changed_setting_with_fresh_discards_what_was_there(begun, tmp_path, capsys):
    (tmp_path / "logs/x/metrics.jsonl").touch()
    begun("--training.steps", "30", fresh=True)
    assert not (tmp_path / "logs/x/metrics.jsonl").exists()
    said = capsys.readouterr().err
    assert "training.steps: 20 -> 30" in said and "discarded" in said


@pytest.mark.parametrize("text", ["training: {no_such_setting: 1}", "a: ["])
def test_a_folder_whose_configuration_cannot_be_read_is_refused_and_discarded(
    begun, tmp_path, text
):
    (tmp_path / "logs/x/config.yaml").write_text(text)
    with pytest.raises(ConfigError, match=r"its config.yaml cannot be read"):
        begun()
    begun(fresh=True)
    begun()
