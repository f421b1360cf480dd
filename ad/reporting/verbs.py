"""The command line of the verbs that print a table of what the project has, and their parser.

The tables are imported inside a function, so that `--help` and a wrong option take no time.
"""

import argparse
import inspect
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ad.reporting.tables import Table


def worlds(argv: Sequence[str]) -> None:
    """Print the table of worlds, with the mean returns of random, optimal and searching agents.

    With --update, the table also replaces what is between the lines `<!-- table of worlds -->` and
    `<!-- /table of worlds -->` of a file. The speed of stepping is that of one core of this
    machine.
    """

    def make() -> "Table":
        from ad.reporting.worlds import worlds_table

        return worlds_table()

    _print_table(argv, worlds, make, "envs/README.md")


def sources(argv: Sequence[str]) -> None:
    """Print the table of source algorithms: what each is told, where it runs, and how fast.

    With --update, the table also replaces what is between the lines `<!-- table of sources -->` and
    `<!-- /table of sources -->` of a file. The speeds are those of one core of this machine.
    """

    def make() -> "Table":
        from ad.reporting.sources import sources_table

        return sources_table()

    _print_table(argv, sources, make, "ad/sources/README.md")


def totals(argv: Sequence[str]) -> None:
    """Print the total rewards of sources over 1,000 tasks beside published ones.

    With --update, the table also replaces what is between the lines `<!-- table of totals -->` and
    `<!-- /table of totals -->` of a file. It takes two minutes.
    """

    def make() -> "Table":
        from ad.reporting.totals import totals_table

        return totals_table()

    _print_table(argv, totals, make, "envs/README.md")


def verb_parser(
    name: str, verb: Callable, kind: type = argparse.ArgumentParser
) -> argparse.ArgumentParser:
    """Return a parser of options for a verb that does not read an experiment."""
    raw = argparse.RawDescriptionHelpFormatter
    about = inspect.getdoc(verb)
    return kind(prog=f"ad {name}", description=about, formatter_class=raw, allow_abbrev=False)


def _print_table(
    argv: Sequence[str], verb: Callable, make: Callable[[], "Table"], page: str
) -> None:
    """Print the table that `make` returns, and put it in the file that `--update` names.

    `page` is an example of such a file. Raises ConfigError, before `make` is called, if the file
    has no lines `<!-- table of <verb> -->` and `<!-- /table of <verb> -->`.
    """
    parser, mark = verb_parser(verb.__name__, verb), f"table of {verb.__name__}"
    parser.add_argument("--update", type=Path, help=f"a file with the two lines: {page}")
    options = parser.parse_args(argv)
    from ad.runtime.console import info
    from ad.runtime.files import read_marked, replace_between

    if options.update:
        read_marked(options.update, [mark])
    text = make().markdown()
    info(text.rstrip())
    if options.update:
        replace_between(options.update, {mark: text})
