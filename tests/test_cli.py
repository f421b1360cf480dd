"""The frame around every verb: options, help, exit codes, a sentence for a failure."""

import os
import re
import signal
import subprocess
import sys
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest

from ad.cli import TABLE, VERBS, Verb, exit_code, lock_files
from ad.config.options import Option, flag
from ad.config.parser import load
from ad.config.schema import Experiment, diff, dump
from ad.errors import ConfigError, CorruptError, MachineError, NumericError

ROOT = Path(__file__).parent.parent
SMOKE = "configs/smoke.yaml"
FRESH = Option("fresh", "start again", "false", flag)
VERB = """
import sys, time
from ad.cli import Verb, lock_files, run_and_exit

def main(run):
    print("started", flush=True)
    time.sleep(30)

if __name__ == "__main__":
    try:
        run_and_exit(Verb("wait", "__main__:main", "Wait.", takes=lock_files))
    finally:
        print("torch" in sys.modules)
"""


def called(run, fresh):
    """What VERB_OF_TEST calls; a test replaces it."""


VERB_OF_TEST = Verb("test", f"{__name__}:called", "A verb.", (FRESH,), lock_files)


def start(folder: Path, *words: str) -> subprocess.Popen:
    """A process that runs the verb above, which waits."""
    (folder / "verb.py").write_text(VERB)
    return subprocess.Popen(
        [sys.executable, "verb.py", *words],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def code_of(main, monkeypatch, *words: str) -> int:
    """The exit code of a verb that calls `main`."""
    monkeypatch.setattr(f"{__name__}.called", main)
    return exit_code(VERB_OF_TEST, words)


@pytest.fixture
def root(tmp_path) -> list[str]:
    """The words for an empty folder."""
    return ["--root", str(tmp_path)]


def test_a_verb_gets_its_run_and_its_options_and_ends_with_0(root, monkeypatch):
    seen = []
    words = ["--name", "x", "--fresh", "true", *root]
    assert code_of(lambda run, fresh: seen.extend([run, fresh]), monkeypatch, *words) == 0
    assert (seen[0].config.name, seen[1]) == ("x", True)


@pytest.mark.parametrize(
    ("error", "code"), [(ConfigError, 2), (MachineError, 3), (CorruptError, 4), (NumericError, 5)]
)
def test_an_expected_failure_is_its_sentence_and_its_exit_code(
    error, code, root, monkeypatch, capsys
):
    def main(run, fresh):
        raise error("what went wrong")

    assert code_of(main, monkeypatch, *root) == code
    assert capsys.readouterr() == ("", "what went wrong\n")


def test_a_full_disk_is_a_sentence_and_exit_code_3(root, monkeypatch, capsys):
    def main(run, fresh):
        with open("/dev/full", "w") as file:
            file.write("x")

    assert code_of(main, monkeypatch, *root) == 3
    assert capsys.readouterr().err == "No space left on device\n"


@pytest.mark.parametrize(
    ("error", "code", "sentence"),
    [
        (
            RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory"),
            3,
            "not enough",
        ),
        (MemoryError(), 3, "use, for example, a smaller batch, context or model"),
        (KeyboardInterrupt(), 130, "begin again, or without --fresh true to go on"),
    ],
)
def test_an_error_of_python_that_is_expected_is_a_sentence(
    error, code, sentence, root, monkeypatch, capsys
):
    def main(run, fresh):
        raise error

    assert code_of(main, monkeypatch, *root, "--fresh", "true") == code
    assert sentence in capsys.readouterr().err


def test_a_bug_keeps_its_traceback(root, monkeypatch):
    def main(run, fresh):
        raise FileNotFoundError("a file that the program should have written")

    with pytest.raises(FileNotFoundError):
        code_of(main, monkeypatch, *root)


def test_all_problems_of_a_command_line_are_named_at_once(root, capsys):
    words = ["--fresh", "maybe", "--config", "x.yaml", "--training.steps", "-1", *root]
    words += [f"{ROOT}/configs/smoke.yaml", "seven"]
    assert exit_code(VERB_OF_TEST, words) == 2
    err = capsys.readouterr().err
    assert all(name in err for name in ("--fresh", "training.steps", "seven"))
    assert "--config is not an option; did you mean --config_path?" in err


@pytest.mark.parametrize(
    ("words", "name"),
    [
        (["results", "--sed", "0"], "--sed"),
        (["results", "--seeds", "a"], "--seeds"),
        (["seeds", "--seeds", "1,1"], "--seeds must be different numbers"),
        (["results", "--shard", "3/2"], "--shard"),
        (["import_histories", "--format", "minari", "--to", "x.yaml"], "--from is missing"),
    ],
)
def test_a_verb_refuses_wrong_and_missing_options(words, name, capsys):
    assert exit_code(VERBS[words[0]], words[1:]) == 2
    assert name in capsys.readouterr().err


def test_a_bare_word_is_the_experiment_of_a_verb_or_the_option_that_is_declared_so(
    tmp_path, monkeypatch
):
    seen = []
    monkeypatch.setattr(f"{__name__}.called", lambda *words, **named: seen.append((words, named)))
    bare = partial(Option, about="", bare=True)
    verb = Verb("x", f"{__name__}:called", "X.", (bare("kind"), FRESH, bare("name")))
    verb(["method", "--fresh", "true", "mine"])
    verb(["mine", "--kind", "world"])
    assert [named for _, named in seen] == [
        {"kind": "method", "name": "mine", "fresh": True},
        {"kind": "world", "name": "mine", "fresh": False},
    ]
    (tmp_path / "x.yaml").write_text("training: {steps: 300}")
    VERB_OF_TEST([str(tmp_path / "x.yaml"), "--root", str(tmp_path)])
    assert seen[-1][0][0].config.training.steps == 300


def test_the_folder_of_a_run_stands_for_its_experiment_where_it_lies_now(tmp_path, monkeypatch):
    config = replace(load(["--name", "a", "--training.steps", "300"]), root="elsewhere")
    folder = tmp_path / "logs/b"  # moved and renamed
    folder.mkdir(parents=True)
    (folder / "config.yaml").write_text(dump(config))
    found = load([str(folder), "--training.batch_size", "8"])
    assert (found.training.steps, found.training.batch_size) == (300, 8)
    assert found.folder == folder
    monkeypatch.chdir(tmp_path)
    assert load(["logs/b/"]).root == "." and load(["logs/b", "--name", "c"]).name == "c"


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        ([SMOKE, "y"], f"'y' is one word too many: --config_path is '{SMOKE}' already"),
        (["y", "--config_path", SMOKE], "'y' is one word too many: --config_path"),
        (["quickstar"], "there is no file quickstar"),
        (["configs"], "configs is not the folder of a run: logs/<run> with a config.yaml"),
        (["ad/errors.py:ADError"], "is none of these: world, source algorithm, obs"),
        (["ad/errors.py:ADErrors"], "has no class ADErrors; did you mean ADError?"),
    ],
)
def test_a_bare_word_that_names_no_experiment_is_one_sentence(words, sentence, monkeypatch):
    monkeypatch.chdir(ROOT)
    with pytest.raises(ConfigError, match=re.escape(sentence)) as caught:
        load(words)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "setting"),
    [
        ("worlds.py:Bandit", "env.id"),
        ("components.py:RandomSearch", "source.algorithm"),
        ("components.py:Averages", "model.memory"),
        ("components.py:Critic", "method.name"),
        ("broken.py:Untrained", "model.encoder"),
    ],
)
def test_the_place_of_a_class_stands_for_the_defaults_with_that_component(name, setting):
    place = f"{Path(__file__).parent}/{name}"
    found = load([place])
    others = {"split.num_train_tasks": 12} if setting == "env.id" else {}  # of 16 tasks
    assert {setting: place, **others}.items() <= diff(Experiment(), found).items()


def test_a_bad_configuration_is_refused_before_anything_heavy_is_imported(tmp_path):
    process = start(tmp_path, "--training.stps", "3")
    out, err = process.communicate(timeout=60)
    assert process.returncode == 2
    assert err == "training.stps (command line) is not a setting; did you mean steps?\n"
    assert out == "False\n"
    assert os.listdir(tmp_path) == ["verb.py"]


@pytest.mark.parametrize(
    ("number", "code", "word"),
    [(signal.SIGINT, 130, "interrupted"), (signal.SIGTERM, 143, "terminated")],
)
def test_a_signal_ends_a_verb_with_its_own_exit_code(number, code, word, tmp_path):
    process = start(tmp_path)
    assert process.stdout.readline() == "started\n"
    process.send_signal(number)
    _, err = process.communicate(timeout=60)
    assert process.returncode == code
    assert err == f"{word}; run the same command to resume\n"


def test_ctrl_c_while_a_verb_is_imported_shows_no_traceback(tmp_path):
    slow = "import time; print('importing', flush=True); time.sleep(60)"
    (tmp_path / "pyrallis.py").write_text(slow)
    process = subprocess.Popen(
        [sys.executable, "scripts/collect.py"],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": f"{tmp_path}:{ROOT}"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout.readline() == "importing\n"
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert (process.returncode, err) == (130, "interrupted; run the same command to resume\n")


def test_every_verb_has_a_script_that_can_be_run_as_a_file():
    scripts = {path.stem for path in (ROOT / "scripts").glob("*.py")}
    scripts -= {"__init__", "readme_tables"}
    assert scripts == set(VERBS) and not scripts & sys.stdlib_module_names
    command = [sys.executable, "scripts/run.py", "--help"]
    process = subprocess.run(command, cwd=ROOT, env=_environment(), capture_output=True, text=True)
    assert process.returncode == 0 and process.stdout.startswith("usage: ad run")


def _environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(ROOT)}


@pytest.mark.parametrize("verb", TABLE, ids=lambda verb: verb.name)
def test_the_help_of_a_verb_is_its_own_options(verb, capsys):
    verb(["--help"])
    lines = capsys.readouterr().out.splitlines()
    assert verb.about.splitlines()[0] in lines and len(lines) < 45
    for option in verb.options:
        assert any(line.startswith(f"  --{option.name} ") for line in lines)
    assert callable(verb.load())


def test_help_lists_the_settings_by_section_or_all(capsys):
    VERBS["train"](["--help", "source"])
    source = capsys.readouterr().out
    assert "--source.env_steps 200000" in source and "--source.settings.learning_rate" in source
    assert "--training.steps" not in source
    VERBS["train"](["--help", "all"])
    text = capsys.readouterr().out
    assert source.strip() in text and "--training.steps 1000" in text
    assert all(line.split(maxsplit=2)[2:] for line in text.splitlines() if line.startswith("  --"))
    assert exit_code(VERBS["train"], ["--help", "trainin"]) == 2
    assert "did you mean training" in capsys.readouterr().err


def test_the_console_command_lists_its_verbs_and_refuses_another():
    def run(*words: str, flags=()) -> subprocess.CompletedProcess:
        command = [sys.executable, *flags, "-m", "ad.cli", *words]
        return subprocess.run(command, env=_environment(), capture_output=True, text=True)

    done = run()
    assert done.returncode == 0
    assert [line.split()[0] for line in done.stdout.splitlines()[2:]] == list(VERBS)
    done = run("evaluat")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "'evaluat' is not a verb; did you mean evaluate?\n"
    done = run("train", flags=["-S"])  # without installed packages
    assert done.returncode == 3 and " is not installed" in done.stderr
