"""Imports run one way, importing does nothing, and the project stays as small as it is."""

import ast
import functools
import graphlib
from collections import Counter
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGES = ("envs", "ad", "scripts")

# A package imports only packages before it; those in one tuple do not know each other.
LAYERS = (
    ("envs",),
    ("ad", "ad.errors", "ad.registry"),
    ("ad.config",),
    ("ad.runtime",),
    ("ad.data",),
    ("ad.sources", "ad.models"),
    ("ad.collection", "ad.methods"),
    ("ad.rollout",),
    ("ad.training",),
    ("ad.evaluation",),
    ("ad.reporting",),
    ("ad.pipeline", "ad.findings"),
    ("ad.interpret", "ad.exchange", "ad.check", "ad.doctor", "ad.scaffold"),
    ("ad.entry", "ad.entry_scores", "ad.play"),
    ("ad.sweeps",),
    ("ad.cli",),
    ("scripts",),
)
# What a package or module must not import either, directly or through others.
FILES = ["ad.data.store"]
FORBIDDEN = {
    "envs": ["ad", "scripts"],
    "ad.models": [*FILES, "envs"],
    "ad.methods": FILES,
    "ad.sources.returns": ["envs"],
}
# What every package may import: the tables of names, the parts and encodings of an observation.
DEFINITIONS = {"envs.registry", "envs.spaces", "envs.minigrid.encoding"}
# Who goes beyond a limit says why in CHANGELOG.md, or makes room.
MOST_LINES = {"ad": 36_252, "envs": 7_413, "scripts": 1_900, "tests": 24_398}  # of Python
MOST_FLOORS = 12  # modules in the longest chain of imports in ad/
MOST_ROOMS = 21  # folders in ad/ with Python files
MOST_FILES = 14  # Python files in a folder of ad/ that holds no plug-ins
PLUGINS = {
    *("ad/sources", "ad/methods", "ad/models/encoders", "ad/models/memories"),
    *("ad/interpret/analyses", "ad/sweeps/launchers"),
}
SYSTEM = {"environ", "getenv", "cwd", "argv", "is_available", "manual_seed", "open", "read_text"}


def module_name(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


TREES = {
    module_name(path): ast.parse(path.read_text())
    for package in PACKAGES
    for path in sorted((ROOT / package).rglob("*.py"))
}


def imports(tree: ast.Module, everywhere: bool = True) -> set[str]:
    """Return the project's modules that a tree imports; with `everywhere` inside functions too."""
    names = set()
    for node in at_import(tree, everywhere):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names |= {f"{node.module}.{alias.name}" for alias in node.names} | {node.module}
    return names & TREES.keys()


def at_import(tree: ast.AST, everywhere: bool = False):
    """The nodes that run when the module is imported, with `everywhere` those of functions too.

    What is there for a type checker alone does not run.
    """
    functions = () if everywhere else (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)
    for node in ast.iter_child_nodes(tree):
        types_only = isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"
        if not types_only and not isinstance(node, functions):
            yield node
            yield from at_import(node, everywhere)


def reached(module: str) -> set[str]:
    """The project's modules that come along when `module` is imported."""
    found, waiting = set(), {module}
    while waiting:
        found |= waiting
        waiting = {name for known in waiting for name in imports(TREES[known])} - found
    return found


def inside(module: str, package: str) -> bool:
    return f"{module}.".startswith(f"{package}.")


def package(module: str) -> str:
    return max((name for name in sum(LAYERS, ()) if inside(module, name)), key=len)


def layer(module: str) -> int:
    return next(number for number, names in enumerate(LAYERS) if package(module) in names)


def test_a_package_imports_only_packages_before_it():
    wrong = {
        f"{module} -> {name}"
        for module, tree in TREES.items()
        for name in imports(tree, everywhere=False) - {module}
        if not allowed(module, name)
    }
    assert not wrong


def allowed(module: str, other: str) -> bool:
    return layer(other) < layer(module) or package(other) == package(module)


def test_no_chain_of_imports_is_long():
    @functools.cache
    def floors(module: str) -> int:
        others = imports(TREES[module], everywhere=False) - {module}
        return 1 + max(map(floors, others), default=0)

    members = [name for name in TREES if inside(name, "ad")]
    assert max(map(floors, members)) <= MOST_FLOORS


@pytest.mark.parametrize("package", FORBIDDEN)
def test_imports_run_one_way(package):
    members = [name for name in TREES if inside(name, package)]
    wrong = {
        f"{member} -> {name}"
        for member in members
        for name in reached(member)
        for other in FORBIDDEN[package]
        if inside(name, other) and name not in DEFINITIONS
    }
    assert members and not wrong


def test_no_two_modules_import_each_other():
    graph = {name: imports(tree, everywhere=False) - {name} for name, tree in TREES.items()}
    graphlib.TopologicalSorter(graph).prepare()


def test_importing_reads_no_path_device_seed_or_variable_of_the_system():
    used = {
        (module, name)
        for module, tree in TREES.items()
        for node in at_import(tree)
        if not is_main_guard(node)
        for name in (getattr(node, "attr", None), getattr(node, "id", None))
    }
    assert not [(module, name) for module, name in used if name in SYSTEM]


def test_every_module_says_what_it_is():
    assert not [name for name, tree in TREES.items() if tree.body and not ast.get_docstring(tree)]


@pytest.mark.parametrize("folder", MOST_LINES)
def test_a_folder_has_no_more_lines_than_its_limit(folder):
    lines = sum(len(path.read_text().splitlines()) for path in (ROOT / folder).rglob("*.py"))
    assert lines <= MOST_LINES[folder]


def test_there_are_no_more_rooms_and_files_than_can_be_remembered():
    files = Counter(str(path.parent.relative_to(ROOT)) for path in (ROOT / "ad").rglob("*.py"))
    assert len(files) <= MOST_ROOMS
    assert not {room: n for room, n in files.items() if n > MOST_FILES and room not in PLUGINS}


def is_main_guard(node: ast.AST) -> bool:
    return isinstance(node, ast.If) and "__main__" in ast.dump(node.test)
