"""The interface of memories: how a sequence model sums up its past.

In training a memory maps the tokens of whole windows to hidden states. In a rollout it reads the
tokens of a decision at a time, and its cache holds what it keeps of those before: keys and values,
a recurrent state. The hidden states are the same numbers, and no method knows which memory it has.
A memory that `carries` a state can read sequences that are longer than a window, by segments, in
training and in rollouts. To add one: a file here and a line in `ad/registry.py`.
"""

import copy
from abc import abstractmethod
from collections.abc import Callable
from typing import ClassVar, Self

import torch
from torch import nn

from ad.config.schema import Experiment, ModelConfig
from ad.errors import SettingError
from ad.models.positions import Start
from ad.registry import POSITIONS, TOKENIZERS


class Cache:
    """What a memory keeps of the tokens that each of N environments has read in its window.

    All environments read equally many tokens at a time, `read` since the last reset, of which
    `length` are in the window. When the window is full, its owner calls `reset` and reads what
    stays of it anew; between two segments it calls `next_segment` instead. A copy (`copy.copy`)
    whose `select` is called next shares nothing with the original.
    """

    length = 0

    @property
    def start(self) -> Start:
        """The number of the next token in its window."""
        return self.length

    @property
    def read(self) -> int:
        """The number of tokens read since the last reset."""
        return self.length

    def next_segment(self) -> None:
        """Begin a segment, from which no gradient reaches those before it."""
        raise NotImplementedError

    def advance(self, tokens: int) -> None:
        """Add `tokens` to the length."""
        self.length += tokens

    def reset(self) -> None:
        """Forget every token."""
        self.length = 0

    def select(self, envs: torch.Tensor) -> None:
        """Keep the environments `envs`, int64 [M], in this order; indices may repeat."""
        raise NotImplementedError

    def replace(self, envs: torch.Tensor, other: Self) -> None:
        """Keep of the environments `envs`, int64 [M], what `other` does, which read as much.

        A cache without it is filled again from the windows of all environments.
        """
        raise NotImplementedError

    def split(self, envs: torch.Tensor, branches: int, tokens: int) -> "Cache":
        """Return a cache with `branches` environments, adjacent, in the place of each.

        `envs` [N * branches] are the environments that they are branches of. They read at most
        `tokens` tokens more, and are not selected from. This cache stays as it is.
        """
        split = copy.copy(self)
        split.select(envs)
        return split


class Episodes(Cache):
    """Makes another cache one of environments whose episodes begin and end at different times.

    Each step adds `new` tokens to each environment. The first decision of an episode has only
    `first` of them, which are the last ones. The `extra` = new - first tokens before them are
    padding, on which no token of the episode depends. `begins` is the number of the first token of
    each environment's episode, int64 [N, 1].
    """

    def __init__(self, num_envs: int, first: int, new: int, device: torch.device):
        self.new, self.extra = new, new - first
        self.begins = torch.full((num_envs, 1), self.extra, device=device)

    @property
    def start(self) -> torch.Tensor:
        """The number of the next token in its episode, int64 [N, 1]; negative for padding."""
        return self.length - self.begins

    def reset(self) -> None:
        """Begin an episode in every environment."""
        super().reset()
        self.begins = torch.full_like(self.begins, self.extra)

    def begin(self, envs: torch.Tensor) -> None:
        """Begin an episode in the environments `envs`, bool [N]."""
        if envs.all():
            self.reset()
        else:
            self.begins = self.begins.masked_fill(envs[:, None], self.length + self.extra)

    def select(self, envs: torch.Tensor) -> None:
        """Keep the environments `envs`, int64 [M], in this order; indices may repeat."""
        super().select(envs)
        self.begins = self.begins[envs]


class Memory(nn.Module):
    """Maps tokens [B, L, C] to hidden states [B, L, C]; a subclass computes them.

    It is built as `Subclass(config, streams, rotate)`. C is `config.width`. A class with
    `reads_streams` takes tokens in parallel `streams`: B is windows × streams, and the streams of a
    window are adjacent. One with `rotates` turns its queries and keys by `rotate`, if it is not
    None (`positions.py`). The hidden state of a token depends on the tokens of its window up to
    itself. Settings of `model` in `unused` mean nothing to the class: only their defaults are
    accepted. It reads those of `layers`, `norm`, `feed_forward` and `dropout` that it has.

    A subclass has `forward` and `new_cache`. Without `new_episode_cache` a decision that reads its
    own episode alone is a forward pass over the window. A class that `carries` a state from one
    segment to the next has caches with `next_segment`. One with `retrieved` reads windows of which
    that share shows the best episodes before the others. The analyses look inside a `Blocks`.
    """

    unused: ClassVar[tuple[str, ...]] = ("heads", "attention_dropout")
    reads_streams: ClassVar[bool] = False
    rotates: ClassVar[bool] = False
    carries: ClassVar[bool] = False
    retrieved: ClassVar[float] = 0.0
    # Set by a training that is to save the inputs of layers alone, and to compute the rest again.
    activation_checkpointing = False

    def __init__(self, config: ModelConfig, streams: int = 1, rotate: Callable | None = None):
        super().__init__()
        self.config, self.streams, self.rotate = config, streams, rotate

    @classmethod
    def check(cls, config: Experiment) -> None:
        """Raise SettingError if a setting of `config.model` does not fit the class."""
        model = config.model
        for name in cls.unused:
            if getattr(model, name) != (default := getattr(ModelConfig(), name)):
                text = f"must stay {default:g} with model.memory {model.memory}, which has none"
                raise SettingError(f"model.{name}", text)
        if not cls.rotates and getattr(POSITIONS.load(model.position), "rotate", None):
            text = f"must not be {model.position} with model.memory {model.memory}"
            raise SettingError("model.position", f"{text}: it turns queries and keys")
        if not cls.reads_streams and TOKENIZERS.load(model.tokenizer).streams > 1:
            text = f"must not be {model.tokenizer} with model.memory {model.memory}"
            raise SettingError("model.tokenizer", f"{text}: it has parallel streams")
        if config.training.segments > 1:
            cls._check_segments(config)

    @abstractmethod
    def forward(self, tokens: torch.Tensor, cache: Cache | None = None) -> torch.Tensor:
        """Return the hidden states of `tokens`, which follow those in `cache` and enter it."""
        raise NotImplementedError

    @abstractmethod
    def new_cache(self, num_envs: int, capacity: int) -> Cache:
        """Return an empty cache for `num_envs` environments, `capacity` tokens in each stream.

        It is valid for the present weights, without dropout.
        """
        raise NotImplementedError

    def new_state(self, num_windows: int) -> Cache:
        """Return the cache that carries a state between the segments of a forward pass."""
        return self.new_cache(num_windows, 0)

    def new_episode_cache(
        self, num_envs: int, capacity: int, first: int, new: int
    ) -> Episodes | None:
        """Return an empty cache for episodes of at most `capacity` tokens, None if there is none.

        An episode's first decision has `first` tokens, a further one `new`.
        """
        return None

    def largest_activation(self, length: int) -> int:
        """Return the elements of the largest activation of a window of `length` tokens."""
        return length * max(self.config.feed_forward, 4 * self.config.width)

    @classmethod
    def _check_segments(cls, config: Experiment) -> None:
        """Raise SettingError unless the class can read several segments of a sequence."""
        model = config.model
        if not cls.carries:
            text = f"must stay 1 with model.memory {model.memory}, which carries no state"
            raise SettingError("training.segments", f"{text} from one segment to the next")
        if model.position == "window":
            text = "must not be window with training.segments above 1"
            raise SettingError("model.position", f"{text}: what is read is longer than a window")
        if config.training.activation_checkpointing:
            text = "must be false with training.segments above 1"
            raise SettingError("training.activation_checkpointing", f"{text}: a state is carried")
