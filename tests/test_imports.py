"""Imports run one way, and importing does nothing."""

import ast
import functools
import graphlib
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
    ("ad.pipeline",),
    ("ad.interpret", "ad.exchange"),
    ("ad.sweeps",),
    ("ad.verbs",),
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
MOST_FLOORS = 12  # modules in the longest chain of imports
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
    """The project's modules that a tree imports; with `everywhere` also inside functions."""
    found = set()
    for node in ast.walk(tree) if everywhere else at_import(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            found |= {f"{node.module}.{alias.name}" for alias in node.names} | {node.module}
    return found & TREES.keys()


def at_import(tree: ast.AST):
    """The nodes that run when the module is imported: all that is not inside a function."""
    for node in ast.iter_child_nodes(tree):
        if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            yield node
            yield from at_import(node)


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


@pytest.mark.parametrize("module", TREES)
def test_a_package_imports_only_packages_before_it(module):
    others = imports(TREES[module], everywhere=False) - {module}
    wrong = [name for name in others if not allowed(module, name)]
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


@pytest.mark.parametrize("module", TREES)
def test_importing_reads_no_path_device_seed_or_variable_of_the_system(module):
    used = {
        getattr(node, "attr", getattr(node, "id", None))
        for node in at_import(TREES[module])
        if not is_main_guard(node)
    }
    assert not used & SYSTEM


@pytest.mark.parametrize("module", TREES)
def test_every_module_says_what_it_is(module):
    tree = TREES[module]
    assert ast.get_docstring(tree) or not tree.body


def is_main_guard(node: ast.AST) -> bool:
    return isinstance(node, ast.If) and "__main__" in ast.dump(node.test)
