"""A diagonal linear recurrence: minimal gated recurrent units (Feng et al. 2024, arXiv 2410.01201).

A unit's state h_t = (1 - z_t) h_{t-1} + z_t c_t depends on the states before it linearly, with a
gate z_t and a candidate c_t of the token alone (section 3.1). So training computes the states of a
whole window in log2(L) steps, a rollout one state after the other at a constant cost. The output is
gated by the token, as in other layers of this kind (De et al. 2024, arXiv 2402.19427, section 2.3),
which makes the weights of a layer as many as those of attention.
"""

import torch
import torch.nn.functional as F
from torch import nn

from ad.config.schema import ModelConfig
from ad.models.memories.base import Episodes
from ad.models.memories.blocks import Block
from ad.models.memories.gru import RecurrentCache, RecurrentMemory
from ad.models.points import HookPoint

LONGEST = 256  # tokens that the slowest unit averages over at initialization


class LinearRecurrence(nn.Module):
    """A layer of minimal gated recurrent units, whose output is gated by the token."""

    def __init__(self, width: int):
        super().__init__()
        self.gate, self.candidate = nn.Linear(width, width), nn.Linear(width, width)
        self.out_gate, self.out = nn.Linear(width, width), nn.Linear(width, width)
        self.hook_state = HookPoint()

    def forward(
        self, x: torch.Tensor, cache: RecurrentCache | None = None, layer: int = 0
    ) -> torch.Tensor:
        """Return the gated states after each of the tokens `x`, [B, L, C] -> [B, L, C]."""
        gate = self.gate(x)
        if gate.dtype == torch.bfloat16:  # in which 1 - gate of a slow unit rounds to 1
            gate = gate.float()
        gate = gate.sigmoid()
        kept, added = 1 - gate, gate * self.candidate(x)
        if cache is not None:
            if isinstance(cache, Episodes):
                # An episode begins at token 0, after its padding, with a state of zeros.
                number = cache.start + torch.arange(x.shape[1], device=x.device)
                kept = kept.masked_fill((number <= 0)[..., None], 0)
            before = kept[:, :1] * cache.states[layer][:, None]
            added = torch.cat([added[:, :1] + before, added[:, 1:]], 1)
        states = linear_scan(kept, added)
        if cache is not None:
            cache.states[layer] = states[:, -1]
        return self.out(self.hook_state(states) * F.silu(self.out_gate(x)))


def linear_scan(kept: torch.Tensor, added: torch.Tensor) -> torch.Tensor:
    """Return h_t = kept_t h_{t-1} + added_t for t = 0 to L - 1 with h_{-1} = 0, [B, L, C] each.

    After step k, entry t has the sum over the last 2^k tokens (Hillis and Steele 1986).
    """
    reach = 1
    while reach < kept.shape[1]:
        earlier = F.pad(added[:, :-reach], (0, 0, reach, 0))
        added = added + kept * earlier
        kept = kept * F.pad(kept[:, :-reach], (0, 0, reach, 0))
        reach *= 2
    return added


class MinGRU(RecurrentMemory):
    """Blocks of a layer of minimal gated recurrent units and an MLP."""

    def __init__(self, config: ModelConfig, *tokens):
        layers = (LinearRecurrence(config.width) for _ in range(config.layers))
        super().__init__((Block(each, "min_gru", config) for each in layers), config, *tokens)
        # The units average over 2 to LONGEST tokens, spread evenly on a logarithmic scale.
        lengths = 2 * (LONGEST / 2) ** torch.linspace(0, 1, config.width)
        for block in self.blocks:
            block.get_parameter("min_gru.gate.bias").data = -(lengths - 1).log()
