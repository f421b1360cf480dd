"""The options of a verb that starts jobs. Imports nothing heavy, so that `--help` takes no time."""

import argparse
from collections.abc import Sequence

from ad.errors import ConfigError


class SweepParser(argparse.ArgumentParser):
    """A parser whose help ends with the settings of every launcher."""

    def format_help(self) -> str:
        from ad.config.help import launcher_help

        return f"{super().format_help()}{launcher_help()}"


def add_launcher_options(parser: argparse.ArgumentParser, keeps_failures: bool = False) -> None:
    """Add the options that are for this process and not for the jobs which it starts.

    A verb that `keeps_failures` beside its records has --retry too.
    """
    parser.add_argument(
        "--launcher",
        default="none",
        help="local, submitit or ray: make the runs in jobs; none: in this process",
    )
    parser.add_argument("--launcher_settings", default="", help="YAML, e.g. '{jobs: 4}'; see below")
    add_flag(parser, "dry", "print what the launcher would start, e.g. a script for sbatch")
    if keeps_failures:
        add_flag(parser, "retry", "make the runs that failed again")


def take_launcher_options(
    argv: Sequence[str], keeps_failures: bool = False
) -> tuple[argparse.Namespace, list[str]]:
    """Return the options of `add_launcher_options` and the other words of `argv`.

    Raises ConfigError.
    """
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    add_launcher_options(parser, keeps_failures)
    options, rest = parser.parse_known_args(argv)
    if options.launcher == "none" and (options.dry == "true" or options.launcher_settings):
        raise ConfigError("--dry and --launcher_settings need --launcher local, submitit or ray")
    if options.launcher != "none" and any(word.split("=")[0] == "--shard" for word in rest):
        raise ConfigError("--shard is what --launcher gives to its jobs: leave one of them out")
    return options, rest


def add_flag(parser: argparse.ArgumentParser, name: str, about: str) -> None:
    """Add an option whose value is true or false, false by default."""
    parser.add_argument(f"--{name}", choices=("true", "false"), default="false", help=about)
