"""Reading and writing the points of a model (`ad.models.points`) while a block of code runs."""

from collections.abc import Callable, Generator, Mapping
from contextlib import ExitStack, contextmanager
from fnmatch import fnmatchcase
from typing import NamedTuple

import torch
from torch import nn

from ad.errors import ConfigError
from ad.models.points import HookPoint
from ad.models.positions import Start
from ad.models.sequence_model import SequenceModel
from envs.registry import did_you_mean


class Point(NamedTuple):
    """The place of a value: a point's name, and the number of its first token in the window.

    With a cache of `Episodes` the number is int64 [N, 1], negative for padding before an episode.
    """

    name: str
    start: Start


Write = Callable[[torch.Tensor, Point], torch.Tensor]  # a value -> its replacement
Values = dict[str, torch.Tensor]  # by the name of their point


def point_names(memory: nn.Module) -> list[str]:
    """Return the names of all points of `memory`, in the order of computation."""
    return [name for name, module in memory.named_modules() if isinstance(module, HookPoint)]


@contextmanager
def hooked(
    model: SequenceModel, read: tuple[str, ...] = (), write: Mapping[str, Write] | None = None
) -> Generator[Values]:
    """Yield a dict that each forward pass of `model` in the block fills with the points in `read`.

    `read`: names of points, in which * stands for any characters. `write`: by such a name, a
    function of a value and its Point that returns the replacement. A point is read after it is
    written. Reading changes no bit of the logits, unless scores, patterns, results or scales are
    read, which attention and normalization otherwise do not compute. Of a pass over several
    segments the values of all tokens are read.

    Raises ConfigError for a name that is no point. The model is in evaluation mode.
    """
    assert not model.training
    memory, write = model.memory, dict(write or {})
    names = point_names(memory)
    for pattern in (*read, *write):
        if not any(fnmatchcase(name, pattern) for name in names):
            raise ConfigError(f"the model has no point {pattern!r}{did_you_mean(pattern, names)}")
    values: Values = {}
    start: Start = 0

    def begin(module, arguments) -> None:
        values.clear()

    def enter(module, arguments, named) -> None:
        nonlocal start
        cache = arguments[1] if len(arguments) > 1 else named.get("cache")
        start = 0 if cache is None else cache.start

    def hook_of(name: str, functions: list[Write], is_read: bool) -> Callable:
        def hook(module, arguments, value: torch.Tensor) -> torch.Tensor:
            for function in functions:
                value = function(value, Point(name, start))
            if is_read:
                before = [values[name]] if model.carries and name in values else []
                values[name] = torch.cat([*before, value], 1) if before else value
            return value

        return hook

    with ExitStack() as hooks:
        hooks.enter_context(model.tokenizer.register_forward_pre_hook(begin))
        hooks.enter_context(memory.register_forward_pre_hook(enter, with_kwargs=True))
        for name in names:
            functions = [f for pattern, f in write.items() if fnmatchcase(name, pattern)]
            is_read = any(fnmatchcase(name, pattern) for pattern in read)
            if functions or is_read:
                hook = hook_of(name, functions, is_read)
                point = memory.get_submodule(name)
                hooks.enter_context(point.register_forward_hook(hook))
        yield values
