"""Lists of constraints between settings, and how an experiment is checked against them.

A constraint is a function of the values of some settings. It returns the rest of a sentence about
the first of them, or None. It is skipped while one of its settings already has a problem.
"""

import operator
from collections.abc import Callable, Collection, Iterator

from ad.config.fields import overlaps
from ad.config.schema import Experiment
from ad.errors import Problem


class Constraints:
    """Constraints, in the order in which they are checked."""

    def __init__(self):
        self._checks: list[tuple[tuple[str, ...], Callable]] = []

    def register(self, *paths: str) -> Callable:
        """Add the decorated function as a constraint on the values at the dotted `paths`."""

        def add(function: Callable) -> Callable:
            self._checks.append((paths, function))
            return function

        return add

    def violations(self, config: Experiment, bad: Collection[str] = ()) -> Iterator[Problem]:
        """Yield the problems of `config`.

        `bad` are the dotted paths of settings that already have a problem.
        """
        bad = set(bad)
        for paths, check in self._checks:
            if not any(overlaps(path, other) for path in paths for other in bad):
                found = self._problems(check, paths, config)
                bad |= {problem.path for problem in found}
                yield from found

    def _problems(
        self, check: Callable, paths: tuple[str, ...], config: Experiment
    ) -> list[Problem]:
        text = check(*(operator.attrgetter(path)(config) for path in paths))
        return [Problem(paths[0], text)] if text else []
