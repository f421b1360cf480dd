"""A run takes no other configuration but its own, and none that is not exactly what it says."""

import resource
import subprocess
import sys
from pathlib import Path

import pytest
from processes import ROOT

from ad.config.parser import load
from ad.errors import ConfigError
from ad.runtime.run import Run


@pytest.fixture
def begun(smoke, tmp_path):
    """begun(*words): the run of the smoke experiment with options; its folder is there already."""
    Run.open(smoke(tmp_path, "--name", "x"))
    return lambda *words, fresh=False: Run.open(smoke(tmp_path, "--name", "x", *words), fresh)


BINDING = {
    "a number": ("--training.learning_rate 1e-4", "training.learning_rate: 0.003 -> 0.0001"),
    "a whole number": ("--training.steps 30", "training.steps: 20 -> 30"),
    "a choice": ("--model.tokenizer separate", "model.tokenizer: 'fused' -> 'separate'"),
    "a boolean": ("--model.next_observation false", "model.next_observation: true -> false"),
    "a seed": ("--training.train_seed 1", "training.train_seed: 0 -> 1"),
    "a list": ("--split.held_out [[0,0]]", "split.held_out: null -> [[0, 0]]"),
    "one of the world": ("--env.kwargs.start random", "env.kwargs.start: not set"),
    "one of the algorithm": ("--source.settings.hidden 8", "source.settings.hidden: 128 -> 8"),
    "a component": ("--method.name expert_distillation", "method.name: 'algorithm_distill"),
}


@pytest.mark.parametrize("kind", BINDING)
def test_a_changed_setting_that_binds_is_refused_with_the_difference(begun, kind):
    words, difference = BINDING[kind]
    with pytest.raises(ConfigError) as caught:
        begun(*words.split())
    assert difference in str(caught.value)


def test_a_refused_change_leaves_the_folder_as_it_was(begun, tmp_path):
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
    with pytest.raises(ConfigError):
        begun("--training.steps", "30")
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")} == before


@pytest.mark.parametrize(
    "words",
    [
        "--threads 2",
        "--training.log_every 7",
        "--training.eval_every 7",
        "--training.checkpoint_every 7",
        "--training.max_bad_batches 7",
        "--record.fps 7",
        "--evaluation.episodes 7",
        "--evaluation.action greedy",
    ],
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


@pytest.mark.parametrize("text", ["training: {no_such_setting: 1}", "a: [", "\x00"])
def test_a_folder_whose_configuration_cannot_be_read_is_refused_and_discarded(
    begun, tmp_path, text
):
    (tmp_path / "logs/x/config.yaml").write_text(text)
    with pytest.raises(ConfigError, match=r"its config.yaml cannot be read"):
        begun()
    begun(fresh=True)
    begun()


STRICT = [
    ("training: {steps: null}", "must be a whole number, not null"),
    ("training: {steps: 2.0}", "must be a whole number, not 2.0"),
    ("training: {steps: 1e3}", "must be a whole number, not 1000.0"),
    ("training: {steps: '5'}", "must be a whole number, not '5'"),
    ("training: {learning_rate: true}", "must be a number, not true"),
    ("training: {learning_rate: -.inf}", "must be written in base 10 and be finite"),
    ("training: {learning_rate: [.NaN]}", "must be written in base 10 and be finite"),
    ("env: {kwargs: {size: .nan}}", "must be written in base 10 and be finite"),
    ("training: {compile: 'true'}", "must be true or false, not 'true'"),
    ("training: {compile: 0}", "must be true or false, not 0"),
    ("training: {<<: {steps: 3}}", "is not a plain text key"),
    ("split: {held_out: [[1, 2.5]]}", "must be a list"),
    ("split: {held_out: 3}", "must be a list"),
    ("name: !!binary aGVsbG8=", "has a value of the unsupported type"),
    ("env: !!set {a, b}", "file.yaml"),
    (f"training: {{steps: {'9' * 5000}}}", "training.steps"),
    ("a: &a [*a]", "an alias (*name) is not allowed"),
    ("training: {steps: 3} # \u2028\n...\nname: x", "file.yaml"),
]


@pytest.mark.parametrize(("text", "sentence"), STRICT, ids=range(len(STRICT)))
def test_what_is_not_exactly_a_value_of_its_setting_is_refused(tmp_path, text, sentence):
    (tmp_path / "file.yaml").write_text(text)
    with pytest.raises(ConfigError) as caught:
        load(["--config_path", str(tmp_path / "file.yaml")])
    assert sentence in str(caught.value)


def test_a_refusal_takes_about_a_second_and_creates_nothing(tmp_path):
    def seconds() -> float:
        usage = resource.getrusage(resource.RUSAGE_CHILDREN)
        return usage.ru_utime + usage.ru_stime

    before, command = seconds(), [sys.executable, "-m", "scripts.run", "--root", str(tmp_path)]
    done = subprocess.run([*command, "--training.steps", "2.7"], cwd=ROOT, capture_output=True)
    assert done.returncode == 2 and done.stdout == b""
    assert done.stderr.decode().splitlines() == [
        "training.steps (command line) must be a whole number, not 2.7"
    ]
    assert seconds() - before < 2
    assert list(Path(tmp_path).iterdir()) == []
