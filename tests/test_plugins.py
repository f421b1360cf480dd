"""Components from outside the repository: entry points of installed packages, and own files."""

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from processes import ROOT

import envs
from ad.data.histories import HistoryStore
from ad.errors import ConfigError
from ad.registry import METHODS
from ad.runtime.run import Run
from envs.gymnasium_vec import GymnasiumVectorEnv

PACKAGE = """\
from dataclasses import dataclass

from ad.config.fields import field
from ad.methods.algorithm_distillation import AlgorithmDistillation


@dataclass(frozen=True)
class Settings:
    '''Settings of the scaled loss.'''

    factor: float = field(2.0, above=0)
    '''factor of the loss'''


class Scaled(AlgorithmDistillation):
    Settings = Settings

    def loss(self, model, batch):
        loss, numbers = super().loss(model, batch)
        return self.settings.factor * loss, numbers
"""
PYPROJECT = """\
[build-system]
requires = ["setuptools"]
build-backend = "setuptools.build_meta"
[project]
name = "scaled"
version = "1"
[tool.setuptools]
py-modules = ["scaled_method"]
[project.entry-points."algorithm_distillation.methods"]
scaled = "scaled_method:Scaled"
misspelled = "scaled_method:Scald"
gone = "no_such_module:Scaled"
expert_distillation = "scaled_method:Scaled"
[project.entry-points."algorithm_distillation.worlds"]
"HalfRoom-v0" = "envs.grid.dark_room:DarkRoom"
"""
COMPONENTS = """\
from __future__ import annotations

from dataclasses import dataclass

import gymnasium
from gymnasium.spaces import Discrete

from ad.methods.algorithm_distillation import AlgorithmDistillation
from ad.models.encoders.table import TableEncoder
from ad.models.memories.gru import GRU
from ad.sources.noisy_expert import NoiseDistillation
from envs.grid.dark_room import DarkRoom


class Method(AlgorithmDistillation):
    @dataclass(frozen=True)
    class Settings:
        factor: float = 2.0
        name: str = "x"

        def __post_init__(self):
            if self.factor < 0:
                raise ValueError("factor must not be negative")

    def loss(self, model, batch):
        loss, numbers = super().loss(model, batch)
        return self.settings.factor * loss, numbers


class Source(NoiseDistillation):
    pass


class Encoder(TableEncoder):
    pass


class Memory(GRU):
    unused = ()


class World(DarkRoom):
    def __init__(self, every: int = 2, **kwargs):
        self.every = every
        super().__init__(**kwargs)

    def all_tasks(self):
        return super().all_tasks()[:: self.every]


class Env(gymnasium.Env):
    observation_space, action_space = Discrete(2), Discrete(3)

    def __init__(self, arm: int):
        self.arm = arm

    def reset(self, *, seed=None, options=None):
        return 0, {}

    def step(self, action):
        return 1, float(action == self.arm), True, False, {}


class TupleSettings(Method):
    @dataclass(frozen=True)
    class Settings:
        sizes: tuple[int, ...] = (1, 2)


class NoSettings:
    loss = None
"""


@pytest.fixture(scope="module")
def installed(tmp_path_factory) -> Path:
    """A folder into which pip has installed the package above, without a network."""
    source, target = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("target")
    (source / "pyproject.toml").write_text(PYPROJECT)
    (source / "scaled_method.py").write_text(PACKAGE)
    options = ["--quiet", "--no-build-isolation", "--no-deps", "--no-index"]
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "install", *options]
    subprocess.run([*pip, "--target", target, source], check=True)
    return target


@pytest.fixture
def found(installed, monkeypatch):
    """The package above on the path of this process."""
    monkeypatch.syspath_prepend(installed)
    for registry in (METHODS, envs.REGISTRY):
        monkeypatch.delitem(registry.__dict__, "installed", raising=False)
    yield
    for registry in (METHODS, envs.REGISTRY):
        registry.__dict__.pop("installed", None)


@pytest.fixture
def own(tmp_path, monkeypatch) -> str:
    """The path of the file of components above, relative to the working directory."""
    (tmp_path / "own").mkdir()
    (tmp_path / "own" / "parts.py").write_text(COMPONENTS)
    monkeypatch.chdir(tmp_path)
    return "own/parts.py"


def test_an_installed_package_adds_a_method_to_the_configuration_and_to_the_help(installed):
    program = """
import sys
from ad.cli import VERBS
from ad.config.parser import load
load([])
assert "scaled_method" not in sys.modules
print(load(["--method.name", "scaled"]).method)
VERBS["run"](["--help", "all"])
"""
    command = [sys.executable, "-c", program]
    environment = {"PYTHONPATH": f"{ROOT}:{installed}"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    first, *lines = done.stdout.splitlines()
    assert first == "MethodConfig(name='scaled', settings={'factor': 2.0})"
    assert "if method.name is scaled" in lines
    assert any("--method.settings.factor 2.0" in line for line in lines)
    (choices,) = (line for line in lines if line.startswith("  --method.name"))
    assert choices.endswith(", gone, misspelled, scaled)")
    assert "(algorithm_distillation, expert_distillation, " in choices
    worlds = ", ".join(envs.REGISTRY)
    assert f"worlds: {worlds}, HalfRoom-v0, any Gymnasium id" in lines
    assert "  it cannot be loaded: scaled_method has no class Scald; did you mean Scaled?" in lines


def test_an_installed_package_adds_a_world(found, smoke, tmp_path):
    assert smoke(tmp_path, "--env.id", "HalfRoom-v0").env.id == "HalfRoom-v0"
    assert envs.make("HalfRoom-v0", size=5).observation_space.n == 25


def test_a_name_of_the_project_wins_over_an_installed_one_with_a_warning(found, capsys):
    assert "scaled" in METHODS.names()
    assert METHODS.load("expert_distillation").__name__ == "ExpertDistillation"
    assert capsys.readouterr().err.startswith("warning: the method 'expert_distillation' is ad.")


@pytest.mark.parametrize("name", ["scald", "misspelled", "gone"])
def test_a_broken_package_is_refused(found, smoke, tmp_path, name):
    with pytest.raises(ConfigError, match=r"^method\.name \(command line\)"):
        smoke(tmp_path, "--method.name", name)


def test_components_of_an_own_file_come_back_from_a_runs_configuration(own, smoke, tmp_path):
    words = ["--env.id", f"{own}:World", "--env.kwargs.every", "1", "--source.env_steps", "800"]
    words += ["--source.algorithm", f"{own}:Source", "--method.name", f"{own}:Method"]
    words += ["--model.encoder", f"{own}:Encoder", "--method.settings.factor", "3"]
    words += ["--model.memory", f"{own}:Memory", "--model.heads", "4"]
    config = smoke(tmp_path, *words)
    assert config.method.settings == {"factor": 3.0, "name": "x"}
    assert HistoryStore(config).path.name.startswith("own_parts_py_world-own_parts_py_source-")
    run = Run.open(config)
    assert smoke(tmp_path, "--config_path", str(run.folder / "config.yaml")) == config


def test_a_class_is_named_by_its_module(smoke, tmp_path):
    name = "ad.methods.expert_distillation:ExpertDistillation"
    assert smoke(tmp_path, "--method.name", name).method.settings["expert_fraction"] == 0.1
    assert envs.make_base("envs.grid.dark_room:DarkRoom", size=3).shape == (3, 3)


@pytest.mark.parametrize("asynchronous", [False, True])
def test_an_own_env_is_used_as_one_with_an_id_of_gymnasium(own, smoke, tmp_path, asynchronous):
    arms = [{"arm": arm} for arm in range(3)]
    words = ["--env.id", f"{own}:Env", "--env.kwargs", "{}", "--env.tasks", str(arms)]
    assert smoke(tmp_path, *words, "--split.num_train_tasks", "2").env.tasks == arms
    world = envs.make_base(f"{own}:Env", arms, tasks=[[0], [2]], asynchronous=asynchronous)
    assert isinstance(world, GymnasiumVectorEnv)
    world.reset(seed=0)
    assert world.step(np.array([2, 2]))[1].tolist() == [0.0, 1.0]
    world.close()
    assert envs.make(f"{own}:Env", arm=1).action_space.n == 3


def test_a_file_is_imported_once_in_all_threads_and_under_all_its_paths(own):
    paths = [own, f"./{own}", str(Path(own).resolve())] * 4
    with ThreadPoolExecutor(4) as pool:
        classes = set(pool.map(METHODS.load, [f"{path}:Method" for path in paths]))
    assert len(classes) == 1


BAD = [
    ("--method.name", "own/part.py:Method", "method.name"),
    ("--method.name", "own/parts.py:Methd", "method.name"),
    ("--method.name", "own/parts.py:annotations", "method.name"),
    ("--method.name", "own/syntax.py:Method", "method.name"),
    ("--method.name", "own/exits.py:Method", "method.name"),
    ("--method.name", "no.such:Method", "method.name"),
    ("--method.name", "own/parts.py:NoSettings", "method.name"),
    ("--method.name", "own/parts.py:TupleSettings", "method.name"),
    ("--method.name", "own/parts.py", "method.name"),
    ("--method.settings.factr", "1", "method.settings.factr"),
    ("--method.settings.factor", "-1", "method.name"),
    ("--source.algorithm", "own/parts.py:Method", "source.algorithm"),
    ("--model.encoder", "own/parts.py:Env", "model.encoder"),
    ("--model.memory", "own/parts.py:Encoder", "model.memory"),
    ("--env.id", "own/gone.py:World", "env"),
    ("--env.id", "own/parts.py:Method", "env"),
    ("--env.id", "gymnasium:FrozenLaek-v1", "env"),
]


@pytest.mark.parametrize(("option", "value", "setting"), BAD)
def test_a_bad_file_or_class_is_refused_by_its_setting(
    own, smoke, tmp_path, option, value, setting
):
    (tmp_path / "own" / "syntax.py").write_text("import os\nclass class\n")
    (tmp_path / "own" / "exits.py").write_text("raise SystemExit(3)\n")
    words = ["--method.name", f"{own}:Method", option, value]
    with pytest.raises(ConfigError) as caught:
        smoke(tmp_path, *words)
    assert str(caught.value).startswith(f"{setting} (command line) ")
    assert not (tmp_path / "logs").exists()
