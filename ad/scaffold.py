"""Write what an outsider begins with: a component with its test, or a folder of experiments.

A component is written from a template in `ad/templates`. In a checkout of the project it goes to
the folder of its kind and gets a line in the registry; elsewhere a setting names it by its file.
"""

import importlib.metadata
import importlib.util
import keyword
import re
import shutil
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import jinja2

from ad.errors import ConfigError, MachineError
from ad.runtime.console import info
from ad.runtime.files import write_text
from envs.registry import did_you_mean

TEMPLATES = Path(__file__).parent / "templates"
DISTRIBUTION = "algorithm-distillation"


@dataclass(frozen=True)
class Kind:
    """A kind of component.

    room: the folder of such components in a checkout, and `file` the one with their `table`.
    setting: the setting that names a component, in the command of `verb`, with further `words`.
    """

    room: str
    table: str
    setting: str
    file: str = "ad/registry.py"
    verb: str = "check"
    words: str = ""


KINDS = {
    "world": Kind(
        *("envs", "REGISTRY", "env.id", "envs/__init__.py"),
        words=" --env.episode_length 12 --split.num_train_tasks 6",
    ),
    "method": Kind("ad/methods", "METHODS", "method.name"),
    "source": Kind("ad/sources", "SOURCES", "source.algorithm"),
    "encoder": Kind("ad/models/encoders", "ENCODERS", "model.encoder"),
    "analysis": Kind(
        *("ad/interpret/analyses", "ANALYSES", "analyses"),
        verb="analyze configs/quickstart.yaml",
    ),
}


def new(kind: str, name: str, folder: Path | None) -> None:
    """Write the component `name` of a kind of KINDS and its test, and print how to use it.

    Without a `folder`, the working directory is that of the files, or a checkout of the project.
    Raises ConfigError, and writes nothing, for a name that is taken.
    """
    if kind not in KINDS:
        hint = did_you_mean(kind, KINDS) or f" (kinds: {', '.join(KINDS)})"
        raise ConfigError(f"--kind: {kind!r} is no kind of component{hint}")
    own = KINDS[kind]
    in_checkout = (Path(file).is_file() for file in ("ad/registry.py", "envs/__init__.py"))
    is_checkout = folder is None and all(in_checkout)
    files = _in_checkout(kind, name) if is_checkout else _in_folder(kind, name, folder or Path())
    for path, text in files.items():
        write_text(path, text)
        info(f"written: {path}")
    component, test = list(files)[:2]
    place = _key(kind, name) if is_checkout else f"{component}:{class_name(name)}"
    verb = (
        f"python -m scripts.{own.verb}" if Path("scripts/check.py").exists() else f"ad {own.verb}"
    )
    info(f"try it: {verb} --{own.setting} {place}{own.words}")
    info(f"its test, with the package pytest: python -m pytest {test}")


def init(folder: Path | None) -> None:
    """Write the experiments of the suite into `folder`, and one with a world and a method in it.

    None is the working directory. Raises ConfigError unless the folder is new or empty, and
    MachineError if the installation lacks the experiments.
    """
    folder = folder or Path()
    if folder.exists() and any(folder.iterdir()):
        raise ConfigError(f"--folder: {folder} is not empty; name a new folder or an empty one")
    shutil.copytree(experiments(), folder / "configs")
    files = {folder / "my_experiment.yaml": (TEMPLATES / "experiment.yaml").read_text("utf-8")}
    for kind in ("world", "method"):
        files |= _in_folder(kind, f"my_{kind}", folder)
    for path, text in files.items():
        write_text(path, text)
    info(f"written: {folder / 'configs'}, {', '.join(map(str, files))}")
    info(f"then: cd {folder}")
    info("      ad run configs/quickstart.yaml")
    info("      ad check my_experiment.yaml")


def experiments() -> Path:
    """Return the folder of the suite's experiments: that of the checkout, or of the wheel's data.

    Raises MachineError if neither is there.
    """
    found = [Path(__file__).parents[1] / "configs/quickstart.yaml"]
    with suppress(importlib.metadata.PackageNotFoundError):
        files = importlib.metadata.files(DISTRIBUTION) or []
        data = f"share/{DISTRIBUTION}/configs/quickstart.yaml"
        found += [Path(file.locate()) for file in files if file.match(data)]
    for path in found:
        if path.is_file():
            return path.parent.resolve()
    raise MachineError("this installation has no experiments: install from a wheel or a checkout")


def _in_folder(kind: str, name: str, folder: Path) -> dict[Path, str]:
    """Return the texts of a component and of its test in `folder`, by path.

    Raises ConfigError for a name that cannot be that of a module, or that is one already.
    """
    if importlib.util.find_spec(_checked(name)):
        raise ConfigError(f"--name: there is a module {name}, which {folder / name}.py would hide")
    files = {folder / f"{name}.py": f"{kind}.py", folder / f"test_{name}.py": f"test_{kind}.py"}
    place = f'f"{{Path(__file__).parent}}/{name}.py:{class_name(name)}"'
    return _texts(files, name, place, is_file=True)


def _in_checkout(kind: str, name: str) -> dict[Path, str]:
    """Return the texts of a component, of its test and of its registry in the checkout, by path."""
    own, key = KINDS[kind], _key(kind, _checked(name))
    component = Path(own.room, f"{name}.py")
    place = f"{'.'.join(component.with_suffix('').parts)}:{class_name(name)}"
    files = {component: f"{kind}.py", Path("tests", f"test_{name}.py"): f"test_{kind}.py"}
    registry = {Path(own.file): _with_line(own, key, place)}
    return _texts(files, name, f'"{key}"', is_file=False) | registry


def _texts(files: dict[Path, str], name: str, place: str, is_file: bool) -> dict[Path, str]:
    """Return the text of each of `files`, path -> template. Raises ConfigError if one exists.

    `place` is the expression by which the test names the component, `is_file` whether by its file.
    """
    if taken := [str(path) for path in files if path.exists()]:
        raise ConfigError(f"{' and '.join(taken)} exists: choose another --name")
    return {
        path: jinja2.Template(
            (TEMPLATES / f"{template}.j2").read_text(encoding="utf-8"),
            keep_trailing_newline=True,
            trim_blocks=True,
            undefined=jinja2.StrictUndefined,
        ).render(name=name, class_name=class_name(name), place=place, is_file=is_file)
        for path, template in files.items()
    }


def _with_line(own: Kind, key: str, place: str) -> str:
    """Return the text of the registry with a line for `key`, after the last smaller name."""
    text = Path(own.file).read_text(encoding="utf-8")
    form = rf"^{own.table}(: [^=\n]+)? = Registry\($.*?^    \}},$"
    table = re.search(form, text, re.MULTILINE | re.DOTALL)
    if table is None:
        raise ConfigError(f"{own.file} has no table {own.table} of the form that it had")
    entries = list(re.finditer(r'^        "([^"]+)": .*\n', table[0], re.MULTILINE))
    if key in [entry[1] for entry in entries]:
        raise ConfigError(f"{own.file} has {key} already: choose another --name")
    smaller = [entry.end() for entry in entries if entry[1] < key]
    at = table.start() + (smaller[-1] if smaller else entries[0].start())
    return f'{text[:at]}        "{key}": "{place}",\n{text[at:]}'


def _checked(name: str) -> str:
    """Return `name`. Raises ConfigError if it is not the name of a module in small letters."""
    if not re.fullmatch(r"[a-z][a-z0-9_]*", name) or keyword.iskeyword(name):
        raise ConfigError(f"--name: {name!r} is no module's name in small letters, as my_method is")
    return name


def class_name(name: str) -> str:
    """Return the name of the class of a module, e.g. MyMethod for my_method."""
    return "".join(word.capitalize() for word in name.split("_"))


def _key(kind: str, name: str) -> str:
    """Return the name of a component in its registry."""
    return f"{class_name(name)}-v0" if kind == "world" else name
