"""An installation outside the checkout: the console command works, and `scripts` is not there."""

import os
import re
import shutil
import site
import subprocess
import sys
import tomllib
import venv
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from processes import ONE_THREAD, ROOT

from envs.extras import EXTRAS


@pytest.fixture(scope="module")
def installed(tmp_path_factory) -> Path:
    """The bin/ of a fresh virtual environment that has the project; its packages are the tests'."""
    folder = tmp_path_factory.mktemp("installed")
    source = folder / "source"  # a copy, since the build writes beside pyproject.toml
    for name in ("ad", "configs", "envs", "scripts"):
        ignored = shutil.ignore_patterns("__pycache__")
        shutil.copytree(ROOT / name, source / name, ignore=ignored)
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    venv.create(folder / "venv")
    (packages,) = (folder / "venv").glob("lib/python*/site-packages")
    (packages / "packages_of_the_tests.pth").write_text("\n".join(site.getsitepackages()))
    options = ["--quiet", "--no-deps", "--no-build-isolation", "--ignore-installed"]
    commands = folder / "venv" / "bin"
    pip = [sys.executable, "-m", "pip", "--python", commands / "python"]
    subprocess.run([*pip, "install", *options, source], check=True)
    return commands


def output(command: list, folder: Path) -> str:
    """The stdout of `command` in `folder`, without this process's PYTHONPATH."""
    env = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"} | ONE_THREAD
    return subprocess.run(
        command, cwd=folder, env=env, stdout=subprocess.PIPE, text=True, check=True
    ).stdout


@pytest.mark.slow
def test_the_console_command_comes_from_nothing_to_a_report(installed, tmp_path):
    output([installed / "ad", "init", "--folder", "mine"], tmp_path)
    folder = tmp_path / "mine"
    assert files_in(folder / "configs") == files_in(ROOT / "configs")
    words = ["--config_path", "configs/smoke.yaml", "--device", "cpu", "--threads", "1"]
    said = output([installed / "ad", "run", *words], folder)
    assert "report: logs/smoke/report.html" in said.splitlines()
    assert (folder / "logs/smoke/report.html").exists()
    assert {path.name for path in folder.iterdir()} >= {"histories", "logs", "videos"}
    output([installed / "ad", "collect", "--config_path", "my_experiment.yaml"], folder)
    assert list((folder / "histories").glob("my_world_py_myworld*"))


def files_in(folder: Path) -> dict[str, bytes]:
    """Return the contents of the files in a folder, by path."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*.*")}


@pytest.mark.slow
def test_only_ad_and_envs_are_installed(installed, tmp_path):
    program = """
import importlib.util as util
print(util.find_spec("ad").origin, util.find_spec("envs").origin, util.find_spec("scripts"))
"""
    ad, envs, scripts = output([installed / "python", "-c", program], tmp_path).split()
    home = str(installed.parent)
    assert ad.startswith(home) and envs.startswith(home) and scripts == "None"


def test_the_citation_has_the_version_of_the_package():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert citation["version"] == project["version"]
    assert citation["authors"] == project["authors"]


FINDS = """
import sys, gymnasium
env, vec_env = gymnasium.make("envs:DarkRoom-v0"), gymnasium.make_vec("envs:KeyToDoor-v0", 3)
print(env.reset(seed=0)[1], vec_env.reset(seed=0)[0].shape, "ad" in sys.modules)
"""


def test_the_lock_agrees_with_pyproject_and_the_constraints():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    optional, scripts = project["project"]["optional-dependencies"], ROOT / "scripts"
    locked, versions = (
        dict(re.findall(r"^([\w.-]+)==([^\s;]+)", (scripts / name).read_text(), re.M))
        for name in ("requirements.txt", "constraints.txt")
    )
    locked = {canonicalize_name(name): version for name, version in locked.items()}
    versions = {canonicalize_name(name): version for name, version in versions.items()}
    assert not {name for name in locked.keys() & versions if locked[name] != versions[name]}
    extras = re.findall(r"--extra (\w+)", (scripts / "lock.sh").read_text())
    texts = [*project["project"]["dependencies"], *project["dependency-groups"]["dev"]]
    wanted = map(Requirement, sum((optional[extra] for extra in extras), texts))
    installed = locked | {"torch": versions["torch"]}  # which lock.sh leaves out
    wrong = {str(r) for r in wanted if installed.get(canonicalize_name(r.name)) not in r.specifier}
    assert not wrong, "bash scripts/lock.sh"
    assert EXTRAS.keys() <= optional.keys()


def test_gymnasium_finds_the_worlds_by_the_name_of_their_module():
    """Gymnasium 1 has no entry points for environments: an id names the module that has it."""
    command = [sys.executable, "-W", "error", "-c", FINDS]
    assert output(command, ROOT) == "{'time': 0} (3,) False\n"
