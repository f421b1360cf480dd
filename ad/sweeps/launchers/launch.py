"""Start the jobs that the options --launcher, --launcher_settings and --dry ask for."""

import shlex
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from ad.config.fields import settings_class, validate
from ad.config.yaml_io import YamlFile
from ad.errors import ConfigError, CorruptError, MachineError, NumericError
from ad.registry import LAUNCHERS
from ad.runtime.console import info, warn
from ad.sweeps.launchers.base import Launcher
from ad.sweeps.launchers.options import Jobs

ATTEMPTS = 4  # of a job that is lost or interrupted
INTERRUPTED = (130, 143)  # exit codes of a verb that a signal stopped, as a cluster's does
ERRORS = {error.exit_code: error for error in (ConfigError, CorruptError, NumericError)}


def launch(jobs: Jobs, folder: Path, most: int) -> bool:
    """Run a verb in at most `most` jobs, whose logs are in `folder`.

    Returns False if the jobs are only printed. Raises ConfigError for wrong options, and the error
    of the first job that fails.
    """
    launcher = new_launcher(jobs.launcher, jobs.launcher_settings, jobs.verb, folder, most)
    count = launcher.settings.jobs
    command = [sys.executable, "-m", "ad.cli", jobs.verb, *jobs.words]
    shards = [["--shard", f"{number}/{count}"] for number in range(1, count + 1)]
    commands = [[*command, *shard] for shard in shards] if count > 1 else [command]
    if jobs.dry:
        info("\n".join(map(shlex.join, commands)))
        return False
    run_jobs(launcher, commands)
    return True


def new_launcher(name: str, settings: str, title: str, folder: Path, most: int) -> Launcher:
    """Return the launcher called `name` with `settings` (YAML) for at most `most` jobs.

    Raises ConfigError.
    """
    if not LAUNCHERS.has(name):
        raise ConfigError(
            f"--launcher must be none or another, not {name}{LAUNCHERS.suggest(name)}"
        )
    try:
        launcher, group = LAUNCHERS.load(name), settings_class(LAUNCHERS, name)
    except ValueError as error:
        raise ConfigError(f"--launcher cannot be {name}: {error}") from None
    text = YamlFile(settings)
    if problems := text.problems or list(validate(group, text.data)):
        raise ConfigError("; ".join(f"--launcher_settings: {p.path} {p.text}" for p in problems))
    own = launcher.Settings(**text.data)
    return launcher(replace(own, jobs=min(own.jobs, most)), title, folder / name)


def run_jobs(launcher: Launcher, commands: Sequence[list[str]]) -> None:
    """Run `commands` to their ends. Raises the error of the first that fails.

    A job that did not end by itself, since its process was killed or told to stop, is started up to
    ATTEMPTS times. Raises MachineError for a job that is still interrupted then: its runs have not
    failed, and the same command resumes them.
    """
    ended, left = {}, list(range(len(commands)))
    for attempt in range(ATTEMPTS):
        if attempt:
            how = _how_stopped(ended, left)
            warn(f"{len(left)} of {len(commands)} jobs were {how} and are started again")
        codes = launcher.run([commands[number] for number in left])
        ended |= dict(zip(left, codes, strict=True))
        if not (left := [number for number, code in ended.items() if _is_stopped(code)]):
            break
    resumes = f"its output is {launcher.output}; the same command resumes"
    if failed := [code for code in ended.values() if code and not _is_stopped(code)]:
        raise ERRORS.get(failed[0], MachineError)(
            f"{len(failed)} of {len(commands)} jobs failed, the first with exit code {failed[0]}: "
            f"{resumes}"
        )
    if left:
        raise MachineError(
            f"{len(left)} of {len(commands)} jobs were {_how_stopped(ended, left)} "
            f"{ATTEMPTS} times: {resumes}"
        )


def _is_stopped(code: int) -> bool:
    """Return whether a job with this exit code did not end by itself."""
    return code < 0 or code in INTERRUPTED


def _how_stopped(ended: dict[int, int], left: Sequence[int]) -> str:
    """Return how the jobs that are `left` ended: lost, interrupted, or both."""
    lost = {"lost" if ended[number] < 0 else "interrupted" for number in left}
    return " or ".join(sorted(lost, reverse=True))
