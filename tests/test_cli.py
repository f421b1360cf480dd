"""The frame around every verb: exit codes, a sentence for a failure, a traceback for a bug."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from ad.cli import VERBS, exit_code
from ad.config.help import help_text
from ad.errors import ConfigError, CorruptError, MachineError, NumericError
from ad.verbs import of_experiment

ROOT = Path(__file__).parent.parent

VERB = """
import sys, time
from ad.cli import run_and_exit
from ad.verbs import of_experiment

def main(config, fresh):
    print("started", flush=True)
    time.sleep(30)

if __name__ == "__main__":
    try:
        run_and_exit(of_experiment(main))
    finally:
        print("torch" in sys.modules)
"""


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


@pytest.fixture
def root(tmp_path) -> list[str]:
    """The words for an empty folder."""
    return ["--root", str(tmp_path)]


def test_a_verb_gets_its_configuration_and_ends_with_0(root):
    seen = []

    def main(config, fresh):
        seen.extend([config, fresh])

    code = exit_code(of_experiment(main), ["--name", "x", "--fresh", "true", *root])
    assert (code, seen[0].name, seen[1]) == (0, "x", True)


@pytest.mark.parametrize(
    ("error", "code"),
    [(ConfigError, 2), (MachineError, 3), (CorruptError, 4), (NumericError, 5)],
)
def test_an_expected_failure_is_its_sentence_and_its_exit_code(error, code, root, capsys):
    def main(config, fresh):
        raise error("what went wrong")

    assert exit_code(of_experiment(main), root) == code
    assert capsys.readouterr() == ("", "what went wrong\n")


def test_a_full_disk_is_a_sentence_and_exit_code_3(root, capsys):
    def main(config, fresh):
        with open("/dev/full", "w") as file:
            file.write("x")

    assert exit_code(of_experiment(main), root) == 3
    assert capsys.readouterr().err == "No space left on device\n"


def test_a_folder_in_the_way_of_a_file_names_the_path(root, capsys, tmp_path):
    (tmp_path / "file").touch()

    def main(config, fresh):
        (tmp_path / "file" / "below").mkdir()

    assert exit_code(of_experiment(main), root) == 3
    assert capsys.readouterr().err == f"Not a directory: {tmp_path}/file/below\n"


def test_a_bug_keeps_its_traceback(root):
    def main(config, fresh):
        raise FileNotFoundError("a file that the program should have written")

    with pytest.raises(FileNotFoundError):
        exit_code(of_experiment(main), root)


def test_a_bad_configuration_is_refused_before_anything_heavy_is_imported(tmp_path):
    process = start(tmp_path, "--training.stps", "3")
    out, err = process.communicate(timeout=30)
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
    begin = time.monotonic()
    process.send_signal(number)
    _, err = process.communicate(timeout=30)
    assert process.returncode == code
    assert err == f"{word}; run the same command to resume\n"
    assert time.monotonic() - begin < 10


def test_ctrl_c_while_a_verb_is_imported_shows_no_traceback(tmp_path):
    slow = "import time; print('importing', flush=True); time.sleep(60)"
    (tmp_path / "pyrallis.py").write_text(slow)
    process = subprocess.Popen(
        [sys.executable, "-m", "scripts.collect"],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout.readline() == "importing\n"
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert (process.returncode, err) == (130, "interrupted; run the same command to resume\n")


def test_a_file_that_vanished_is_a_sentence(root, capsys, tmp_path):
    def main(config, fresh):
        (tmp_path / "gone").read_text()

    assert exit_code(of_experiment(main), root) == 3
    assert capsys.readouterr().err == f"No such file or directory: {tmp_path}/gone\n"


def test_help_is_printed_instead_of_a_run(tmp_path):
    process = start(tmp_path, "--training.steps", "3", "--help")
    out, err = process.communicate(timeout=30)
    assert (process.returncode, err) == (0, "")
    assert "usage: ad <verb> [--config_path FILE.yaml]" in out
    assert "or from the root of a checkout: python -m scripts.<verb>" in out


def test_every_verb_has_a_script_and_a_line_of_help():
    scripts = {path.stem for path in (ROOT / "scripts").glob("*.py")} - {"__init__"}
    assert scripts == set(VERBS)
    process = subprocess.run(
        [sys.executable, "-c", "from ad.cli import main; main()"],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert process.returncode == 0
    lines = process.stdout.splitlines()[2:]
    assert [line.split()[0] for line in lines] == list(VERBS)
    assert all(line.split(maxsplit=1)[1:] for line in lines)


def test_a_word_that_is_no_verb_gets_a_sentence():
    command = [sys.executable, "-c", "from ad.cli import main; main()", "evaluat"]
    process = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert (process.returncode, process.stdout) == (2, "")
    assert process.stderr == "'evaluat' is not a verb; did you mean evaluate?\n"


def test_help_shows_every_setting_with_its_default_and_meaning():
    text = help_text()
    assert "--source.env_steps 200000" in text
    assert "--source.settings.learning_rate" in text
    assert "how an action is chosen from the logits (sample, greedy)" in text
    assert all(line.split(maxsplit=2)[2:] for line in text.splitlines() if line.startswith("  --"))
