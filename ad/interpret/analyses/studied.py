"""A decision transformer of Dynamic Obstacles with made decisions, and what replacing parts does.

What the tests of claims (`claims.py`) share: decisions in each situation that ask for each return,
in two halves; heads that are chosen by their function on the first; and passes with the output of a
component, the attention or a cell of the picture changed. A `subject` is one of `analysis.py`.
"""

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import torch
import torch.nn.functional as F

from ad.data.dataset import to_device
from ad.interpret.analyses.linear import (
    EMPTY,
    affine_circuits,
    features_of,
    front_cell,
    readout,
    thing_vectors,
)
from ad.interpret.analyses.reading import Reading, component_names, read_values
from ad.interpret.components import HEAD, MLP, Ablated, Replacements, parse_components
from ad.interpret.contexts import Contexts
from ad.interpret.directions import parse_direction
from ad.interpret.hooks import Write, hooked
from ad.interpret.situations import made_contexts
from ad.models.sequence_model import SequenceModel
from ad.models.tokenizer import Window
from envs.rng import derive_key

ASKED = LOW, ZERO, HIGH = -1.0, 0.0, 0.9
WALL, BALL, NOTHING = (f"{what} in front" for what in ("wall", "obstacle", "nothing"))
ABOVE, SIDE = "goal in front from above", "goal in front from the left"
SITUATIONS = NOTHING, WALL, BALL, ABOVE, SIDE
COUNT = 64  # observations of a situation, each of which asks for all of ASKED
DRAWS = 20  # random directions
WINDOWS = 1024  # of the histories
TIME = 32  # env steps after which a step into the goal returns the 0.9 that is asked for
GOAL_HEAD, OBSTACLE_HEAD, THE_MLP = "goal head", "obstacle head", "mlp 0"
ATTENTION, Z, MLP_OUT = "blocks.0.attn.hook_pattern", HEAD.format(0), MLP.format(0)
ATTENTION_OUT = "blocks.0.hook_attn_out"
LEFT, RIGHT, FORWARD = range(3)  # actions


class Passed:
    """What a model computes at the last decision of each of B contexts, with hooks `write`.

    logits: float64 [B, A]. values: those that a `Reading` needs.
    """

    def __init__(
        self, model: SequenceModel, contexts: Contexts, write: Mapping[str, Write] | None = None
    ):
        self.model, self.values = model, read_values(model, contexts, write)
        self.logits = self.values["outputs"][:, -1].double()

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

    @property
    def state(self) -> torch.Tensor:
        """The embeddings of the observations, [B, C]."""
        return self.model.tokenizer.at_decisions(self.values["terms.state"])[:, -1]

    def attention(self, head: int) -> np.ndarray:
        """Return the attention of a head to the return-to-go, float64 [B]."""
        return self.values[ATTENTION][:, head, -1, 0].double().numpy()

    def added(self, component: str, direction: torch.Tensor) -> np.ndarray:
        """Return what a component adds to the logits along a direction [A], float64 [B]."""
        components = Reading(self.model, self.values, direction).components()[:, -1]
        return components[:, component_names(self.model).index(component)].double().numpy()

    def added_by_token(self, direction: torch.Tensor) -> np.ndarray:
        """Return what each head adds for each token that it reads, float64 [B, H, K]."""
        return Reading(self.model, self.values, direction).tokens()[:, -1].double().numpy()


def _table(values: list[torch.Tensor]) -> torch.Tensor:
    """Return zeros, the mean and all of what was written at decisions, [2 + M, 1, 1, ...]."""
    every = torch.cat([value[:, -1] for value in values])
    mean = every.mean(0, keepdim=True)
    return torch.cat([torch.zeros_like(mean), mean, every])[:, None, None]


class Studied:
    """A model, with made decisions in every situation that ask for every return, in two halves.

    `goal_head` most keeps the agent from the goal from above, asked for -1, and `obstacle_head`
    from an obstacle, asked for 0.9.
    """

    def __init__(self, subject):
        self.subject, self.model, self.heads = subject, subject.model, subject.heads
        names = subject.run.world.action_names
        self.ahead = parse_direction("forward - turn right", names, 3)
        self.turn = parse_direction("turn right - turn left", names, 3)
        with torch.no_grad():
            self.qk, self.ov = affine_circuits(self.model)  # [H, C + 1, C + 1], [H, C + 1, C]
            (self.features,) = features_of(self.model).values()
            directions = {"ahead": self.ahead, "turn": self.turn}
            self.readers = readout(self.model, directions, {})  # [2, C]
        front = front_cell(subject, "")
        assert front is not None  # `check` of the analysis has asked for the agent's view
        self.front = self.features.cells.index(front)
        self.contexts, self.passed = {}, {}
        for name in SITUATIONS:
            made = made_contexts(subject, name, ASKED, COUNT)
            time = torch.full_like(made.window["time"], TIME)
            made = replace(made, window=made.window | {"time": time})
            for asked in ASKED:
                for half in (0, 1):  # heads are chosen on 0, claims tested on 1
                    rows = np.flatnonzero((made.asked == asked) & (made.group % 2 == half))
                    self.contexts[name, asked, half] = made.select(rows)
                    self.passed[name, asked, half] = self.run(made.select(rows))
        pool = [one.values for (*_, half), one in self.passed.items() if half == 0]
        tables = {point: _table([one[point] for one in pool]) for point in (Z, MLP_OUT)}
        self.replacements = Replacements(tables, 1, ())
        self.goal_head, self.obstacle_head = (
            self._strongest(*place) for place in ((ABOVE, LOW), (BALL, HIGH))
        )

    def run(self, contexts: Contexts, write: Mapping[str, Write] | None = None) -> Passed:
        """Run the model on contexts, with hooks that change points."""
        return Passed(self.model, contexts, write)

    def named(self, component: str) -> str:
        """Return the head called GOAL_HEAD or OBSTACLE_HEAD, another component as it is."""
        heads = {GOAL_HEAD: self.goal_head, OBSTACLE_HEAD: self.obstacle_head}
        return heads.get(component, component)

    def at(self, name: str, asked: float, half: int = 1) -> Passed:
        """Return the pass at the decisions in a situation."""
        return self.passed[name, asked, half]

    def _strongest(self, name: str, asked: float) -> str:
        """Return the head that most keeps the agent from what is in front, on the first half."""
        without = [self.without(name, asked, head, True, 0) for head in self.heads]
        return self.heads[int(np.argmax([one.forward.mean() for one in without]))]

    def replaced(self, component: str, strong: bool, count: int) -> dict[str, Write]:
        """Return hooks that replace what a component writes in `count` windows.

        It writes its mean over the first half, or what it writes in a drawn decision of that.
        """
        rng = np.random.default_rng(derive_key(0, "interpret", "claims"))
        drawn = 2 + rng.integers(len(self.replacements.tables[Z]) - 2, size=count)
        rows = torch.from_numpy(drawn) if strong else torch.ones(count, dtype=torch.int64)
        components = [parse_components(component, self.model.transformer)] * count
        return Ablated(self.model, self.replacements, components, rows).writes()

    def without(
        self, name: str, asked: float, component: str, strong: bool, half: int = 1
    ) -> Passed:
        """Return the pass in a situation with the output of a component replaced."""
        contexts = self.contexts[name, asked, half]
        return self.run(contexts, self.replaced(component, strong, len(contexts)))

    def rise(self, name: str, asked: float, component: str, strong: bool = True) -> np.ndarray:
        """Return how the probability of forward rises without a component, [B]."""
        return self.without(name, asked, component, strong).forward - self.at(name, asked).forward

    def random_rise(self, name: str, asked: float, component: str) -> float:
        """Return the 95 % quantile of the mean rise by random directions of equal norm."""
        point = MLP_OUT if component == THE_MLP else ATTENTION_OUT
        before, after = self.at(name, asked), self.without(name, asked, component, True)
        change = (after.values[point] - before.values[point])[:, -1]
        norm, generator = change.norm(dim=1, keepdim=True), torch.Generator().manual_seed(0)
        drawn = F.normalize(torch.randn(DRAWS, change.shape[1], generator=generator), dim=1)
        contexts, rises = self.contexts[name, asked, 1], []
        for added in norm * drawn[:, None]:  # [B, C]
            add = {point: lambda value, point, added=added: value + added[:, None]}
            rises.append((self.run(contexts, add).forward - before.forward).mean())
        return float(np.quantile(rises, 0.95))

    def in_front(self, thing: tuple[int, int, int] | np.ndarray) -> Passed:
        """Return the pass with another thing in front, asked for 0.9; it is no observation."""
        contexts = self.contexts[NOTHING, HIGH, 1]
        image = contexts.window["observation"].clone()
        row, column = map(int, self.features.cells[self.front].split("-"))
        image[..., column, row, :] = torch.as_tensor(thing, dtype=image.dtype)
        return self.run(replace(contexts, window=contexts.window | {"observation": image}))

    def added_in_front(self, thing: tuple[int, int, int]) -> torch.Tensor:
        """Return what a thing in front adds to the token of the state, less an empty cell, [C]."""
        added, empty = thing_vectors(self.features, (thing, EMPTY))[:, self.front]
        return added - empty

    def returns_to_go(self) -> torch.Tensor:
        """Return tokens of a return-to-go of 0.9 with a 1 appended, [B, C + 1]."""
        with torch.no_grad():
            tokens = self.model.tokenizer(self.contexts[NOTHING, HIGH, 1].window)[:, 0]
        return F.pad(tokens, (0, 1), value=1.0)

    def leftwards(self, name: str, asked: float) -> np.ndarray:
        """Return left less right in probability, [B]: mean of a view and of its mirror image."""
        contexts = self.contexts[name, asked, 1]
        flipped = {"observation": contexts.window["observation"].flip(2)}
        mirrored = self.run(replace(contexts, window=contexts.window | flipped))
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

    def log_probability(
        self, window: Window, write: Mapping[str, Write] | None = None
    ) -> np.ndarray:
        """Return the log probability of the actions of histories, float64 [n]."""
        with torch.no_grad(), hooked(self.model, write=write):
            log_probs = self.model(window)[:, -1].double().log_softmax(-1)
        return log_probs.gather(1, window["action"][:, -1:])[:, 0].numpy()
