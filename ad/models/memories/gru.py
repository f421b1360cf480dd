"""A recurrent memory: gated recurrent units (Cho et al. 2014, arXiv 1406.1078).

What it keeps of the past is a vector for each layer, however long the window is, so that a decision
in a rollout always costs the same with `training.segments`; without, a full window is read anew.
Where a transformer has attention, a block has a GRU.
"""

from typing import Self

import torch
from torch import nn

from ad.config.schema import ModelConfig
from ad.models.memories.base import Cache, Episodes
from ad.models.memories.blocks import Block, Blocks
from ad.models.points import HookPoint


class RecurrentCache(Cache):
    """The recurrent states of all layers, [N, C] each, after the tokens read; 0 before them."""

    def __init__(self, layers: int, num_envs: int, like: torch.Tensor, width: int):
        self.states = [like.new_zeros(num_envs, width) for _ in range(layers)]

    def reset(self) -> None:
        """Forget every token."""
        super().reset()
        self.states = [torch.zeros_like(state) for state in self.states]

    def next_segment(self) -> None:
        """Keep the states, without their gradients."""
        self.states = [state.detach() for state in self.states]

    def select(self, envs: torch.Tensor) -> None:
        """Keep the environments `envs`, int64 [M], in this order; indices may repeat."""
        self.states = [state[envs] for state in self.states]

    def replace(self, envs: torch.Tensor, other: Self) -> None:
        """Keep of the environments `envs`, int64 [M], what `other` does, which read as much."""
        pairs = zip(self.states, other.states, strict=True)
        self.states = [own.index_copy(0, envs, new) for own, new in pairs]


class RecurrentEpisodeCache(Episodes, RecurrentCache):
    """A RecurrentCache of environments whose episodes begin and end at different times."""

    def __init__(
        self, layers: int, num_envs: int, like: torch.Tensor, width: int, first: int, new: int
    ):
        Episodes.__init__(self, num_envs, first, new, like.device)
        RecurrentCache.__init__(self, layers, num_envs, like, width)


class Recurrence(nn.GRU):
    """A layer of gated recurrent units, with orthogonal recurrent weights at initialization."""

    def __init__(self, width: int):
        super().__init__(width, width, batch_first=True)
        self.hook_state = HookPoint()

    def forward(  # ty: ignore[lost-keyword-for-regular-parameter] a cache in place of a state
        self, x: torch.Tensor, cache: RecurrentCache | None = None, layer: int = 0
    ) -> torch.Tensor:
        """Return the states after each of the tokens `x`, [B, L, C] -> [B, L, C].

        On a GPU, autocast would compute them in float16, whatever precision was asked for.
        """
        with torch.autocast(x.device.type, enabled=False):
            return self.hook_state(self._states(x, cache, layer))

    def _states(self, x: torch.Tensor, cache: RecurrentCache | None, layer: int) -> torch.Tensor:
        if cache is None:
            return super().forward(x)[0]
        state, outputs = cache.states[layer], []
        # An episode begins at token 0, after its padding, with a state of zeros.
        pieces = x.split(1, 1) if isinstance(cache, Episodes) else [x]
        for number, piece in enumerate(pieces):
            if isinstance(cache, Episodes):
                state = state.masked_fill(cache.start + number <= 0, 0)
            output, state = super().forward(piece, state[None])
            state = state[0]
            outputs.append(output)
        cache.states[layer] = state
        return torch.cat(outputs, 1)


class RecurrentMemory(Blocks):
    """Blocks whose mixing layers keep a vector for each environment, [N, C]."""

    carries = True

    def new_cache(self, num_envs: int, capacity: int) -> RecurrentCache:
        """Return an empty cache for `num_envs` environments."""
        return RecurrentCache(len(self.blocks), num_envs, self.like, self.width)

    def new_episode_cache(
        self, num_envs: int, capacity: int, first: int, new: int
    ) -> RecurrentEpisodeCache:
        """Return an empty cache for episodes, of any length."""
        shape = len(self.blocks), num_envs, self.like, self.width
        return RecurrentEpisodeCache(*shape, first, new)


class GRU(RecurrentMemory):
    """Blocks of a layer of gated recurrent units and an MLP."""

    def __init__(self, config: ModelConfig, *tokens):
        layers = (Recurrence(config.width) for _ in range(config.layers))
        super().__init__((Block(each, "gru", config) for each in layers), config, *tokens)
        for block in self.blocks:
            for gate in block.get_parameter("gru.weight_hh_l0").split(config.width):
                nn.init.orthogonal_(gate)
