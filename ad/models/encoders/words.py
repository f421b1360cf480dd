"""The words of a mission, each of which knows its place."""

import math

import torch
import torch.nn.functional as F
from torch import nn

from ad.models.encoders.base import Encoder
from ad.models.encoders.pictures import place_sinusoids
from envs.minigrid.encoding import WORDS, has_words
from envs.spaces import Array


class MissionWords(Encoder):
    """The sum over the words of a mission of a small network of the word and its place.

    A word has the same vector in every mission. The place is a fixed sinusoid, and the GELU makes
    it matter: a sum of words and places alone would not tell what is put next to what.
    """

    supports = staticmethod(has_words)

    def __init__(self, part: Array, width: int):
        super().__init__()
        (most,) = part.shape
        self.words = nn.Linear(len(WORDS) + 1, width, bias=False)  # the first is for no word
        places = place_sinusoids(1, most, width)[0]
        self.register_buffer("places", places, persistent=False)
        self.inner, self.out = nn.Linear(width, width), nn.Linear(width, width)
        self.scale = 1 / math.sqrt(most)

    def forward(self, values: torch.Tensor) -> torch.Tensor:
        """Return the vectors [..., C] of the numbers of words, `values` [..., L]."""
        one_hot = F.one_hot(values.long(), self.words.in_features).to(self.words.weight.dtype)
        vectors = F.gelu(self.inner(self.words(one_hot) + self.places))  # [..., L, C]
        return self.out(vectors.sum(-2) * self.scale)
