"""What the verb new writes: it passes its tests, in a folder of one's own and in a checkout."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from processes import ONE_THREAD, ROOT

from ad.cli import VERBS, exit_code
from ad.config.parser import load
from ad.errors import ConfigError
from ad.runtime.run import Run
from ad.scaffold import KINDS, init, new

LINES = {  # kind -> file of the registry, the name before, what the line says
    "world": ("envs/__init__.py", "MiniGridTable", 'MyWorld-v0": "envs.my_world:MyWorld'),
    "method": ("ad/registry.py", "in_context_pl", 'my_method": "ad.methods.my_method:MyMethod'),
    "source": ("ad/registry.py", "demonstr", 'my_source": "ad.sources.my_source:MySource'),
    "encoder": ("ad/registry.py", "cnn", 'my_encoder": "ad.models.encoders.my_encoder:MyEncoder'),
    "analysis": (
        *("ad/registry.py", "claims"),
        'my_analysis": "ad.interpret.analyses.my_analysis:MyAnalysis',
    ),
}


def assert_passes(command: list[str], folder: Path, home: Path = ROOT) -> None:
    """Run a module of Python in `folder` with the project at `home`."""
    env = os.environ | ONE_THREAD | {"PYTHONPATH": str(home)}
    command = [sys.executable, "-m", *command]
    done = subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def test_components_in_a_folder_are_short_and_named_by_their_files(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    for kind in KINDS:
        new(kind, f"my_{kind}", Path("own"))
    assert "try it: ad check --method.name own/my_method.py:MyMethod" in capsys.readouterr().out
    written = list(Path("own").iterdir())
    assert len(written) == 10
    assert all(len(path.read_text().splitlines()) < 60 for path in written)


@pytest.fixture
def checkout(tmp_path, monkeypatch) -> Path:
    """The working directory: a copy of the project with its packages alone."""
    for name in ("ad", "envs", "scripts"):
        ignored = shutil.ignore_patterns("__pycache__")
        shutil.copytree(ROOT / name, tmp_path / name, ignore=ignored)
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_components_in_a_checkout_have_a_line_in_the_registry(checkout, capsys):
    for kind, (file, before, line) in LINES.items():
        old = Path(file).read_text().splitlines(keepends=True)
        new(kind, f"my_{kind}", None)
        lines = Path(file).read_text().splitlines(keepends=True)
        (at,) = (n for n, own in enumerate(lines) if own == f'        "{line}",\n')
        assert before in lines[at - 1] and lines[:at] + lines[at + 1 :] == old
    assert "try it: python -m scripts.check --source.algorithm my_source\n" in (
        capsys.readouterr().out
    )
    assert_passes(["ruff", "check", "--no-cache", "."], checkout)
    assert_passes(["ruff", "format", "--no-cache", "--check", "."], checkout)
    quick = ["pytest", "-q", "-p", "no:cacheprovider", "tests"]
    assert_passes([*quick, "-k", "vectors or counts or improve"], checkout, home=checkout)


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["--kind", "method", "--name", "rl2"], "ad/registry.py has rl2 already"),
        (["--kind", "world", "--name", "wrappers"], "envs/wrappers.py exists"),
        (["--kind", "metod", "--name", "mine"], "did you mean method?"),
        (["--kind", "method", "--name", "MyMethod"], "'MyMethod' is no module's name"),
        (["--kind", "method", "--name", "numpy", "--folder", "own"], "there is a module numpy"),
        (["--kind", "method"], "--name is missing"),
    ],
)
def test_what_cannot_be_written_is_one_sentence(words, sentence, checkout, capsys):
    (checkout / "ad/methods/rl2.py").unlink()  # the registry has the name
    before = sorted(checkout.rglob("*"))
    assert exit_code(VERBS["new"], words) == ConfigError.exit_code
    assert sentence in capsys.readouterr().err
    assert sorted(checkout.rglob("*")) == before


def test_a_folder_of_experiments_has_one_with_an_own_world_and_method(tmp_path, monkeypatch):
    init(tmp_path / "mine")
    monkeypatch.chdir(tmp_path / "mine")
    assert load(["--config_path", "configs/quickstart.yaml"]).name == "quickstart"
    config = load(["--config_path", "my_experiment.yaml"])
    assert config.method.name == "my_method.py:MyMethod"
    assert len(Run.open(config).split.held_out_tasks) == 2


def test_experiments_are_not_written_among_other_files(tmp_path, capsys):
    (tmp_path / "notes.txt").write_text("mine")
    assert exit_code(VERBS["init"], ["--folder", str(tmp_path)]) == ConfigError.exit_code
    assert capsys.readouterr().err == (
        f"--folder: {tmp_path} is not empty; name a new folder or an empty one\n"
    )
    assert len(list(tmp_path.iterdir())) == 1
