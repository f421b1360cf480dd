"""A decision transformer of Dynamic Obstacles with made decisions, and what replacing parts does.

What the tests of claims (`claims.py`) share: decisions in each situation that ask for each return,
in two halves; heads that are chosen by their function on the first; and passes with the output of a
component, the attention or a cell of the picture changed.
"""

from functools import cached_property
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F

from ad.data.dataset import to_device
from ad.interpret.analysis import Subject
from ad.interpret.directions import parse_direction
from ad.interpret.hooks import Write, hooked
from ad.interpret.situations import made_contexts
from ad.models.tokenizer import Window
from envs.rng import derive_key

ASKED = LOW, ZERO, HIGH = -1.0, 0.0, 0.9
WALL, BALL, NOTHING = (f"{what} in front" for what in ("wall", "obstacle", "nothing"))
ABOVE, SIDE = "goal in front from above", "goal in front from the left"
SITUATIONS = NOTHING, WALL, BALL, ABOVE, SIDE
EMPTY = 1, 0, 0  # the cell with nothing in it
COUNT = 64  # observations of a situation, each of which asks for all of ASKED
DRAWS = 20  # random directions
WINDOWS = 1024  # of the histories
TIME = 32  # env steps after which a step into the goal returns the 0.9 that is asked for
GOAL_HEAD, OBSTACLE_HEAD, MLP = "goal head", "obstacle head", "mlp"
ATTENTION, Z, V = (f"blocks.0.attn.hook_{name}" for name in ("pattern", "z", "v"))
ATTENTION_OUT, MLP_OUT = "blocks.0.hook_attn_out", "blocks.0.hook_mlp_out"
LEFT, RIGHT, FORWARD = range(3)  # actions


class Passed(NamedTuple):
    """What a pass computes at B decisions: logits float64 [B, A], and values at points."""

    logits: torch.Tensor
    values: dict[str, torch.Tensor]

    @property
    def probability(self) -> np.ndarray:
        """The probability of each action, float64 [B, A]."""
        return self.logits.softmax(-1).numpy()

    @property
    def forward(self) -> np.ndarray:
        """The probability of forward, float64 [B]."""
        return self.probability[:, FORWARD]

    @property
    def preference(self) -> np.ndarray:
        """The logit of forward less that of turn right, float64 [B]."""
        return (self.logits[:, FORWARD] - self.logits[:, RIGHT]).numpy()


class Studied:
    """A model, with made decisions in every situation that ask for every return, in two halves."""

    def __init__(self, subject: Subject):
        self.subject, self.model = subject, subject.model
        attention, self.heads = (
            subject.model.transformer.blocks[0].attn,
            subject.model.transformer.heads,
        )
        self.qkv = attention.qkv.weight.unflatten(0, (3, self.heads, -1))  # [3, H, D, C]
        self.key_bias = attention.qkv.bias.unflatten(0, (3, self.heads, -1))[1]  # [H, D]
        self.out = attention.out.weight.unflatten(1, (self.heads, -1))  # [C, H, D]
        names, head = subject.run.world.action_names, subject.model.head.weight
        self.reader, self.turn = (
            parse_direction(name, names, 3).to(head) @ head
            for name in ("forward - turn right", "turn right - turn left")
        )
        self.windows, self.passed = {}, {}
        for name in SITUATIONS:
            made = made_contexts(subject, name, ASKED, COUNT)
            for asked in ASKED:
                for half in (0, 1):  # heads are chosen on 0, claims tested on 1
                    rows = np.flatnonzero((made.asked == asked) & (made.group % 2 == half))
                    window = made.select(rows).window
                    window |= {"time": torch.full_like(window["time"], TIME)}
                    self.windows[name, asked, half] = window
                    self.passed[name, asked, half] = self.run(window)
        pool = [one.values for (*_, half), one in self.passed.items() if half == 0]
        self.pool = {
            point: torch.cat([one[point][:, -1] for one in pool]) for point in (Z, MLP_OUT)
        }

    def run(self, window: Window, write: dict[str, Write] | None = None) -> Passed:
        """Run the model on a window, with hooks that change points."""
        with torch.no_grad(), hooked(self.model, (ATTENTION, Z, V, MLP_OUT), write) as values:
            return Passed(self.model(window)[:, -1].double(), values)

    def at(self, name: str, asked: float, half: int = 1) -> Passed:
        """Return the pass at the decisions in a situation."""
        return self.passed[name, asked, half]

    def component(self, name: str | int) -> str | int:
        """Return the head called GOAL_HEAD or OBSTACLE_HEAD, another component as it is."""
        return {GOAL_HEAD: self.goal_head, OBSTACLE_HEAD: self.obstacle_head}.get(name, name)

    @cached_property
    def goal_head(self) -> int:
        """The head that most keeps the agent from the goal from above, asked for -1."""
        return self._strongest(ABOVE, LOW)

    @cached_property
    def obstacle_head(self) -> int:
        """The head that most keeps the agent from an obstacle, asked for 0.9."""
        return self._strongest(BALL, HIGH)

    def _strongest(self, name: str, asked: float) -> int:
        without = [self.without(name, asked, head, True, 0) for head in range(self.heads)]
        return int(np.argmax([one.forward.mean() for one in without]))

    def written(self, passed: Passed, component: str | int) -> torch.Tensor:
        """Return what a head or the MLP writes at the decisions, [B, C]."""
        if component == MLP:
            return passed.values[MLP_OUT][:, -1]
        return passed.values[Z][:, -1, component] @ self.out[:, component].T

    def change(self, passed: Passed, component: str | int, strong: bool) -> torch.Tensor:
        """Return what replacing the output of a component adds to the residual stream, [B, C]."""
        pool = self.pool[MLP_OUT if component == MLP else Z]
        rng = np.random.default_rng(derive_key(0, "interpret", "claims"))
        rows = torch.from_numpy(rng.integers(len(pool), size=len(passed.logits)))
        other = pool[rows] if strong else pool.mean(0, keepdim=True)
        if component != MLP:
            other = other[:, component] @ self.out[:, component].T
        return other - self.written(passed, component)

    def without(self, name: str, asked: float, component, strong: bool, half: int = 1) -> Passed:
        """Return the pass in a situation with the output of a component replaced."""
        change = self.change(self.at(name, asked, half), component, strong)
        return self.run(self.windows[name, asked, half], adding(component, change))

    def rise(self, name: str, asked: float, component, strong: bool = True) -> np.ndarray:
        """Return how the probability of forward rises without a component, [B]."""
        return self.without(name, asked, component, strong).forward - self.at(name, asked).forward

    def random_rise(self, name: str, asked: float, component) -> float:
        """Return the 95 % quantile of the mean rise by random directions of equal norm."""
        before, generator = self.at(name, asked), torch.Generator().manual_seed(0)
        norm = self.change(before, component, True).norm(dim=1, keepdim=True)
        drawn = F.normalize(torch.randn(DRAWS, len(self.reader), generator=generator), dim=1)
        window = self.windows[name, asked, 1]
        after = [self.run(window, adding(component, norm * one)) for one in drawn]
        return float(np.quantile([(one.forward - before.forward).mean() for one in after], 0.95))

    def in_front(self, cell: tuple[int, int, int]) -> Window:
        """Return decisions with another cell in front, asked for 0.9; these are no observations."""
        window = self.windows[NOTHING, HIGH, 1]
        image = window["observation"].clone()
        column, row = image.shape[-3] // 2, image.shape[-2] - 2
        image[..., column, row, :] = torch.tensor(cell, dtype=image.dtype)
        return window | {"observation": image}

    def embedding(self, window: Window) -> torch.Tensor:
        """Return the embeddings of the observations of the decisions, [B, C]."""
        return self.model.tokenizer.encoders[0](window["observation"][:, -1])

    def cell(self, cell: tuple[int, int, int], other: tuple[int, int, int] = EMPTY) -> torch.Tensor:
        """Return what a cell in front adds to the embedding, less what another adds, [C]."""
        first, second = (self.embedding(self.in_front(codes)) for codes in (cell, other))
        return (first - second).mean(0)

    def of_token(self, passed: Passed, token: int, reader: torch.Tensor) -> torch.Tensor:
        """Return what each head would write of a token that it attends to alone, [B, H]."""
        return torch.einsum("bhd,chd,c->bh", passed.values[V][:, token], self.out, reader)

    def leftwards(self, name: str, asked: float) -> np.ndarray:
        """Return left less right in probability, [B]: mean of a view and of its mirror image."""
        window = self.windows[name, asked, 1]
        mirrored = self.run(window | {"observation": window["observation"].flip(2)})
        both = (self.at(name, asked).probability + mirrored.probability) / 2
        return both[:, LEFT] - both[:, RIGHT]

    def histories(self, part: tuple[float, float] = (0.0, 1.0)) -> Window:
        """Return decisions of held-out actors in a part of their learning."""
        dataset, method = self.subject.dataset, self.subject.method
        is_held_out = bool(dataset.config.data.held_out_actors)
        sampler = dataset.sampler(
            method.fields, is_held_out, part, method.derived, within_episodes=True
        )
        rng = np.random.default_rng(derive_key(0, "interpret", "claims"))
        return to_device(sampler.sample(rng, WINDOWS), self.model.head.weight.device)


def adding(component: str | int, change: torch.Tensor) -> dict[str, Write]:
    """Return the hooks that add `change` [B, C] to what MLP or heads write at the decisions."""

    def write(value, point):
        return torch.cat([value[:, :-1], value[:, -1:] + change[:, None]], 1)

    return {MLP_OUT if component == MLP else ATTENTION_OUT: write}
