"""What the safety of files costs: its share of the seconds of collect, train and evaluate.

    python -m scripts.safety_cost --config_path configs/quickstart.yaml

Runs the three verbs from nothing in a temporary folder and prints, for each, all its seconds and
those in `SAFETY`: hashes, flushes to the disk, manifests, the states and checkpoints that an
interrupted verb goes on from, and every check of those.
"""

import functools
import importlib
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace

from ad.config.schema import Experiment
from ad.runtime.console import say
from scripts.cli import run_verb

SAFETY = (
    "ad.runtime.files.sha256",
    "ad.runtime.files.sync",
    "ad.runtime.files.publish",
    "ad.runtime.files.read_sealed",
    "ad.runtime.files.write_sealed",
    "ad.runtime.files.remove_leftovers",
    "ad.data.manifest.read_manifest",
    "ad.data.manifest.write_manifest",
    "ad.data.manifest.check_file",
    "ad.data.store._digest",
    "ad.data.store.HistoryWriter.flush",
    "ad.runtime.snapshots.save_state",
    "ad.runtime.snapshots.load_state",
    "ad.training.checkpoints.save",
    "ad.training.checkpoints.load",
    "ad.training.trainer._is_finite",
)
VERBS = ("collect", "train", "evaluate")


@dataclass
class Clock:
    """Adds up the seconds in counted functions, of which one may call another."""

    seconds: float = 0.0
    depth: int = 0

    def counted(self, function: Callable) -> Callable:
        """The function, its outermost calls counted."""

        @functools.wraps(function)
        def call(*args, **kwargs):
            began, self.depth = time.perf_counter(), self.depth + 1
            try:
                return function(*args, **kwargs)
            finally:
                self.depth -= 1
                self.seconds += 0 if self.depth else time.perf_counter() - began

        return call


def measure(config: Experiment) -> dict[str, tuple[float, float]]:
    """verb -> (all seconds, those of safety), from an empty folder."""
    verbs = {verb: importlib.import_module(f"scripts.{verb}") for verb in VERBS}
    # The verbs import these late.
    for name in ("ad.collection.collect", "ad.training.trainer", "ad.evaluation.evaluate"):
        importlib.import_module(name)
    found = {}
    with tempfile.TemporaryDirectory() as root, counting() as clock:
        for verb, module in verbs.items():
            began, before = time.perf_counter(), clock.seconds
            module.main(replace(config, root=root))
            found[verb] = (time.perf_counter() - began, clock.seconds - before)
    return found


@contextmanager
def counting() -> Iterator[Clock]:
    """A clock that counts `SAFETY` while the block runs."""
    clock, replaced = Clock(), [found for path in SAFETY for found in _places(path)]
    for place, name, function in replaced:
        setattr(place, name, clock.counted(function))
    try:
        yield clock
    finally:
        for place, name, function in replaced:
            setattr(place, name, function)


def _places(path: str) -> list[tuple[object, str, Callable]]:
    """(owner, name, function): wherever a module of `ad`, or a class, has the function by name."""
    owner, _, name = path.rpartition(".")
    if owner in sys.modules:
        function = getattr(sys.modules[owner], name)
        owners = [module for key, module in sys.modules.items() if key.split(".")[0] == "ad"]
        return [(o, name, function) for o in owners if getattr(o, name, None) is function]
    module, _, owner = owner.rpartition(".")
    owner = getattr(sys.modules[module], owner)
    return [(owner, name, getattr(owner, name))]


def main(config: Experiment, fresh: bool = False) -> None:
    """Measure and print."""
    measured = measure(config)
    measured["all"] = tuple(map(sum, zip(*measured.values(), strict=True)))
    for verb, (seconds, safety) in measured.items():
        say(f"{verb:9} {seconds:8.1f} s, safety {safety:6.2f} s: {100 * safety / seconds:.2f} %")


if __name__ == "__main__":
    run_verb(main)
