"""What a verb's options say about jobs. Imports nothing heavy, so that `--help` takes no time."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ad.config.options import Option, flag
from ad.errors import ConfigError

LAUNCHER_OPTIONS = (
    Option(
        "launcher",
        "local, submitit or ray: make the runs in jobs; none: in this process",
        "none",
        for_jobs=False,
    ),
    Option(
        "launcher_settings",
        "settings of the launcher as YAML, e.g. '{jobs: 4}'; --help launchers lists them",
        for_jobs=False,
    ),
    Option("dry", "print the commands of the jobs, and stop", "false", flag, for_jobs=False),
)


@dataclass(frozen=True)
class Jobs:
    """The values of the LAUNCHER_OPTIONS of a verb, and the command line of its jobs."""

    verb: str
    words: list[str]  # options of the jobs, without a shard
    launcher: str = "none"
    launcher_settings: str = ""
    dry: bool = False

    def __post_init__(self):
        """Raise ConfigError for options that contradict each other."""
        if self.launcher == "none" and (self.dry or self.launcher_settings):
            raise ConfigError(
                "--dry and --launcher_settings need --launcher local, submitit or ray"
            )
        if self.launcher != "none" and "--shard" in self.words:
            raise ConfigError("--shard is what --launcher gives to its jobs: leave one of them out")


def take_jobs(
    verb: str, options: tuple[Option, ...], words: Mapping[str, str], values: dict[str, Any]
) -> Jobs:
    """Remove the values of LAUNCHER_OPTIONS from `values` and return them as Jobs.

    `words` are all words of the command line of `verb`, which has `options`. Raises ConfigError.
    """
    kept = {option.name for option in options if not option.for_jobs}
    pairs = [(f"--{name}", word) for name, word in words.items() if name not in kept]
    given = {option.name: values.pop(option.name) for option in LAUNCHER_OPTIONS}
    return Jobs(verb, [word for pair in pairs for word in pair], **given)
