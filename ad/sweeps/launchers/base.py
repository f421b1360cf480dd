"""The interface of a launcher: it runs jobs, each the command of a verb in a process of its own.

A job that is lost, since it or its machine was killed, may be started again: the same command
resumes, and the locks of folders and the records see to it that nothing is made twice.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Generic, TypeVar

from ad.config.fields import field
from ad.errors import ConfigError
from envs.extras import missing

LOST = -1  # the exit code of a job that ended without one


@dataclass(frozen=True)
class JobSettings:
    """The settings of every launcher."""

    jobs: int = field(2, at_least=1)
    """number of jobs, which share the runs"""


Own = TypeVar("Own", bound=JobSettings)


class Launcher(ABC, Generic[Own]):
    """Run jobs called `name` with `settings`; their logs are in `folder`.

    `package` is the one that the launcher needs, and the name of its extra. Raises ConfigError if
    it is not installed.
    """

    Settings: ClassVar[type[JobSettings]] = JobSettings
    package: ClassVar[str] = ""

    def __init__(self, settings: Own, name: str, folder: Path):
        if self.package and (text := missing(self.package)):
            raise ConfigError(f"--launcher {self.package} {text}")
        self.settings, self.name, self.folder = settings, name, folder

    @property
    def output(self) -> str:
        """The place of the jobs' output, as the end of a sentence."""
        return "above"

    @abstractmethod
    def run(self, commands: Sequence[list[str]]) -> list[int]:
        """Run each command to its end. Returns their exit codes, below 0 for a job that was lost.

        Stops the jobs before it raises KeyboardInterrupt or Terminated.
        """
