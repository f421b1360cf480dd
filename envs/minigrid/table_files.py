"""The tables of layouts on the disk: each is made once, and read from a file afterwards.

A file is named by the hash of what its table depends on: the id with its arguments, the seed, what
is observed, the versions of MiniGrid, Gymnasium and NumPy, and the source files of the
environment's classes and of the function that makes it, but not of modules that these import, of
classes among the arguments, or of files that they read: delete the folder after a change of one.
No file is kept for an environment that is made by a method, a lambda, a partial, or a function or
class defined inside another function. A file is there in whole or not at all; a damaged one is made
again.
"""

import hashlib
import inspect
import itertools
import json
import os
import signal
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import asdict, fields
from functools import partial
from multiprocessing import connection, get_context, parent_process
from pathlib import Path

import gymnasium
import numpy as np
from gymnasium.envs.registration import load_env_creator
from tqdm import tqdm

from envs import find
from envs.checks import check_integer
from envs.minigrid.make import register, tuples
from envs.minigrid.missions import Missions
from envs.minigrid.observation import Observation, Settings, current
from envs.minigrid.tabular import Table, enumerate_states
from envs.registry import error_text

STARTED = time.time()
TRIES = 4  # seeds for each layout that is to differ from the others
VARIABLE = "MINIGRID_TABLES"  # the folder; by default one in $XDG_CACHE_HOME or ~/.cache
WORKERS = "MINIGRID_WORKERS"  # the processes that make tables: "all", or a number, by default 1


def make_layouts(minigrid_id: str, arguments: dict, settings: Settings) -> Observation:
    """Make the environment of an id or a place. Raises ValueError for an unknown id or argument."""
    register(minigrid_id)
    found = find(minigrid_id)
    if isinstance(found, type):
        raise ValueError(f"{minigrid_id} is no environment of MiniGrid")
    try:
        make = partial(gymnasium.make, found, disable_env_checker=True, **tuples(arguments))
        try:
            env = make(agent_view_size=settings.view)
        except TypeError:  # its constructor does not take the view
            env = make()
        current(env).agent_view_size = settings.view
        return Observation(env, settings, Missions.find(env, settings.mission))
    except (Exception, SystemExit) as error:  # another package may raise anything
        raise ValueError(f"{minigrid_id} cannot be made: {_reason(error)}") from error


def make_table(minigrid_id: str, arguments: dict, settings: Settings, seed: int) -> Table:
    """Return the table of a layout. Raises ValueError if it is none."""
    env = make_layouts(minigrid_id, arguments, settings)
    try:
        return enumerate_states(env, seed)
    except (Exception, SystemExit) as error:  # another package may raise anything
        raise ValueError(f"{minigrid_id} with seed {seed} is no table: {_reason(error)}") from error


def _reason(error: BaseException) -> str:
    """Return what an error says on one line, with its class unless it is a ValueError."""
    return error_text(error).removeprefix("ValueError: ")


def load_tables(
    minigrid_id: str,
    arguments: dict,
    settings: Settings,
    seeds: int | tuple,
    content: Callable[[Table], Iterable[np.ndarray]],
) -> dict[int, Table]:
    """Return the tables of `seeds` by seed; missing ones are made in $MINIGRID_WORKERS processes.

    A number n means the first n seeds whose tables differ in `content`. Raises ValueError as
    `make_layouts` and `make_table` do, and if there are fewer among the first TRIES * n seeds.
    """
    make, found = partial(make_table, minigrid_id, arguments, settings), {}
    env = make_layouts(minigrid_id, arguments, settings)
    if not isinstance(seeds, int):
        return _load(make, _paths(env, seeds))
    tried, most = 0, TRIES * seeds
    while len(found) < seeds and tried < most:
        missing = range(tried, min(tried + seeds - len(found), most))
        for seed, table in _load(make, _paths(env, missing)).items():
            joined = b"".join(array.tobytes() for array in content(table))
            found.setdefault(hashlib.sha256(joined).digest(), (seed, table))
        tried = missing.stop
    if len(found) >= seeds:
        return dict(itertools.islice(found.values(), seeds))
    few = f"{len(found)} different layouts among the first {tried} seeds"
    raise ValueError(f"{minigrid_id} has {few}, not {seeds}")


def _load(make: Callable, paths: dict[int, Path | None]) -> dict[int, Table]:
    files = {seed: path for seed, path in paths.items() if path is not None}
    read = {seed: _read(path) for seed, path in files.items()}
    tables = {seed: table for seed, table in read.items() if table is not None}
    if missing := [seed for seed in paths if seed not in tables]:
        text = os.environ.get(WORKERS, "1")
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
        text = str(cores or 1) if text == "all" else text
        most = check_integer(f"${WORKERS}", int(text) if text.isdecimal() else text, 1, 2**16)
        made = _make_all(make, missing, min(most, len(missing)))
        bar = tqdm(made, "make tables", len(missing), unit=" layouts", disable=None)
        for seed, tables[seed] in bar:
            if seed in files:
                _write(files[seed], tables[seed])
    return {seed: tables[seed] for seed in paths}


def _make_all(make: Callable, seeds: list[int], workers: int) -> Iterator[tuple[int, Table]]:
    """Yield each seed with its table as soon as it is made."""
    if workers == 1:
        yield from zip(seeds, map(make, seeds), strict=True)
        return
    with ProcessPoolExecutor(workers, get_context("spawn"), _follow_parent) as pool:
        try:
            seed_of = {pool.submit(make, seed): seed for seed in seeds}
            for made in as_completed(seed_of):
                yield seed_of[made], made.result()
        except BrokenProcessPool as error:
            reason = f"a process that makes tables ended: try a smaller ${WORKERS}; a script that "
            raise ValueError(f'{reason}sets it needs `if __name__ == "__main__":`') from error
        except BaseException:  # a refusal or an interruption waits for no other layout
            for process in pool._processes.values():
                process.terminate()
            raise


def _follow_parent() -> None:
    """Ignore interruptions, which are those of the parent process, and end when it has ended."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = parent_process()
    assert parent is not None  # a pool has started this process

    def watch() -> None:
        connection.wait([parent.sentinel])
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def _paths(env: Observation, seeds: Iterable[int]) -> dict[int, Path | None]:
    """Return the file of each seed's table; None if the source is in no file or has changed."""
    import minigrid

    spec = env.spec
    if spec is None or spec.entry_point is None:
        return dict.fromkeys(seeds)
    try:
        folder = _folder()
        maker = spec.entry_point
        maker = load_env_creator(maker) if isinstance(maker, str) else maker
        makers = [maker, *type(env.unwrapped).__mro__[:-1]]
        places = map(inspect.getfile, [Table, Observation, *makers])
        files = [Path(place) for place in dict.fromkeys(places)]
        sources = [hashlib.sha256(file.read_bytes()).hexdigest() for file in files]
        times = [time for file in files for time in (file.stat().st_mtime, file.stat().st_ctime)]
        # What another function has made holds more than the text of its file, as does a method.
        names = [getattr(one, "__qualname__", "<made>") for one in makers]
        is_made = "<" in "".join(names) or inspect.ismethod(maker)
        has_changed = max(times) > STARTED or is_made or bool(getattr(maker, "__closure__", None))
    except (OSError, RuntimeError, TypeError):  # RuntimeError: there is no home folder
        has_changed = True
    if has_changed:
        return dict.fromkeys(seeds)
    settings, kind = asdict(env.settings), type(env.unwrapped).__qualname__
    versions = minigrid.__version__, gymnasium.__version__, np.__version__
    made_by = [versions, sources, kind, spec.id, spec.kwargs, spec.max_episode_steps]
    try:
        common = json.dumps([*made_by, settings], default=_as_text, sort_keys=True)
    except (TypeError, ValueError):  # ValueError: an argument holds itself
        return dict.fromkeys(seeds)
    texts = {seed: f"{common[:-1]}, {seed}]" for seed in seeds}
    names = {seed: hashlib.sha256(text.encode()).hexdigest() for seed, text in texts.items()}
    return {seed: folder / f"{name}.npz" for seed, name in names.items()}


def _as_text(value) -> str:
    """Return what names an argument that JSON does not have: a class by its name, an array by all
    of its numbers. Raises TypeError for another one, of which code or memory may be a part."""
    if inspect.isclass(value):
        return f"{value.__module__}.{value.__qualname__}"
    if isinstance(value, np.ndarray | np.generic) and not value.dtype.hasobject:
        return f"{value.dtype.str} {value.shape} {value.tobytes().hex()}"
    raise TypeError(f"{value} has no text that is the same in all processes")


def _folder() -> Path:
    """Return the folder of all tables. Raises RuntimeError if it is unset and there is no home."""
    if folder := os.environ.get(VARIABLE):
        return Path(folder)
    home = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return home / "algorithm_distillation/minigrid"


def _read(path: Path) -> Table | None:
    """Return the table in a file, None if there is none or a damaged one."""
    try:
        with np.load(path, allow_pickle=False) as arrays:
            if arrays.zip.testzip() is not None:  # NumPy need not read an array to its end
                return None
            return Table(**{field.name: arrays[field.name] for field in fields(Table)})
    except Exception:  # NumPy may raise anything for a damaged file
        return None


def _write(path: Path, table: Table) -> None:
    """Write the table to a file, which is there in whole or not at all; warn if that fails."""
    temporary = path.with_suffix(f".{os.getpid()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with open(temporary, "wb") as file:
                np.savez_compressed(file, **vars(table))
            os.replace(temporary, path)
        finally:
            temporary.unlink(missing_ok=True)
    except OSError as error:
        gymnasium.logger.warn(f"the table of a layout is not kept: {error}")
