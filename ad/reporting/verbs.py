"""The verbs that print a table of what the project has."""

from collections.abc import Callable
from pathlib import Path

from ad.reporting.tables import Table
from ad.runtime.console import info
from ad.runtime.files import read_marked, replace_between


def worlds(update: Path | None = None) -> None:
    """Print the table of worlds."""
    from ad.reporting.worlds import worlds_table

    _print_table("worlds", worlds_table, update)


def sources(update: Path | None = None) -> None:
    """Print the table of source algorithms."""
    from ad.reporting.sources import sources_table

    _print_table("sources", sources_table, update)


def totals(update: Path | None = None) -> None:
    """Print the total rewards of sources over 1,000 tasks, with published ones."""
    from ad.reporting.totals import totals_table

    _print_table("totals", totals_table, update)


def _print_table(name: str, make: Callable[[], Table], update: Path | None) -> None:
    """Print the table that `make` returns, and put it in the file `update`.

    Raises ConfigError, before `make` is called, if the file has no lines `<!-- table of <name> -->`
    and `<!-- /table of <name> -->`.
    """
    mark = f"table of {name}"
    if update:
        read_marked(update, [mark])
    text = make().markdown()
    info(text.rstrip())
    if update:
        replace_between(update, {mark: text})
