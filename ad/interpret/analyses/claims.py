"""Claims about a decision transformer on Dynamic Obstacles, each tested on one model in two ways.

The claims are those of a study of 2023 that opened one such model; their words, and what each test
does, are in `configs/records/decision_transformer.yaml`. Observations are made
(`situations.made_contexts`), and ask for each of ASKED. The study's own test takes the sign of a
mean; the stronger one intervenes, and holds if the 95 % interval of the mean over observations
(Student's t) lies on the right side, unless a rule is named below.

Heads are matched by function: the goal head is the one whose removal raises the probability of
forward the most in front of the goal from above, asked for -1; the obstacle head in front of an
obstacle, asked for 0.9. They are chosen on half of the observations, and all tests are on the other
half. A removed component writes its mean (own test), or what it writes in another decision
(stronger), where the effect must exceed that of each other head, and the 95 % quantile of random
directions of equal norm.
"""

from collections.abc import Callable
from typing import ClassVar, NamedTuple

import numpy as np
import torch

from ad.errors import ConfigError
from ad.evaluation.scores import estimate
from ad.interpret.analyses.studied import (
    ABOVE,
    ASKED,
    ATTENTION,
    BALL,
    EMPTY,
    FORWARD,
    GOAL_HEAD,
    HIGH,
    LEFT,
    LOW,
    MLP,
    NOTHING,
    OBSTACLE_HEAD,
    RIGHT,
    SIDE,
    SITUATIONS,
    WALL,
    ZERO,
    Passed,
    Studied,
    adding,
)
from ad.interpret.analysis import Analysis, texts
from ad.interpret.contexts import RETURN_TO_GO
from ad.interpret.labeled import BOUND, BOUNDS, Axes, LabeledArray
from ad.interpret.situations import situation_names
from ad.models.conditioned_tokens import ConditionedTokens
from ad.models.tokenizer import Window
from ad.reporting.page import Table
from envs.minigrid.encoding import has_cells

AHEAD = {"wall": (WALL,), "obstacle": (BALL,), "goal": (ABOVE, SIDE)}
CELLS = {"wall": (2, 5, 0), "obstacle": (6, 2, 0), "goal": (8, 1, 0)}
SLIGHT = 0.05  # change of a probability that does not count


class Outcome(NamedTuple):
    """Effects, float64 [n], most often of n observations, and whether the claim holds."""

    effects: np.ndarray
    holds: bool


UNTESTED = Outcome(np.array([np.nan]), False)


class Claims(Analysis):
    """The claims of the study of 2023, each tested by its own method and by a stronger one."""

    reads_contexts: ClassVar[bool] = False
    arrays: ClassVar[Axes] = {
        "effect": ("claim", "test"),
        "effect_interval": (BOUND, "claim", "test"),
        "holds": ("claim", "test"),
        "held": ("test",),
    }

    @classmethod
    def check(cls, subject):
        """Raise ConfigError with the reason if the subject cannot be analyzed."""
        super().check(subject)
        model, config = subject.model, subject.run.config
        is_plain = len(model.transformer.blocks) == 1 and model.transformer.heads > 1
        is_plain &= config.model.norm == "none" and config.data.context_length == 1
        tokens = isinstance(model.tokenizer, ConditionedTokens)
        tokens &= RETURN_TO_GO in model.tokenizer.inputs and [*model.spec.observation] == [""]
        world = {*SITUATIONS} <= {*situation_names(subject.run.world)}
        if not (is_plain and tokens and world and has_cells(model.spec.observation[""])):
            raise ConfigError(
                "the claims are about decision transformers of one layer, several heads and one "
                "time step, with conditioned tokens, without normalization, on Dynamic Obstacles"
            )

    def run(self, subject):
        """Return the effects, and which parts of claims hold."""
        studied = Studied(subject)
        outcomes = [[test(studied) for test in tests] for tests in PARTS.values()]
        tests = {"test": ["own", "stronger"]}
        axes = {"claim": list(PARTS), **tests}
        known = [[estimate(one.effects) for one in row] for row in outcomes]
        effect = np.array([[one.mean for one in row] for row in known], float)
        ends = [[[getattr(one, end) for one in row] for row in known] for end in BOUNDS]
        holds = np.array([[one.holds for one in row] for row in outcomes], float)
        holds[np.isnan(effect)] = np.nan
        about = "effect: mean over observations"
        return {
            "effect": LabeledArray(effect, axes, about),
            "effect_interval": LabeledArray(
                np.array(ends, float), {BOUND: BOUNDS, **axes}, f"95 % interval of the {about}"
            ),
            "holds": LabeledArray(holds, axes, "whether a part of a claim holds: 1 or 0"),
            "held": LabeledArray(np.nansum(holds, 0), tests, "number of parts that hold"),
        }

    def table(self, results):
        """Return a row for each part of a claim."""
        columns = [results[name].values.T for name in ("effect", "holds")]
        columns = [
            texts(one, style)
            for of, style in zip(columns, ("+.3f", ".0f"), strict=True)
            for one in of
        ]
        header = ["claim", "own test", "stronger test", "holds by its own", "holds by the stronger"]
        return Table(
            header,
            [list(row) for row in zip(results["holds"].axes["claim"], *columns, strict=True)],
        )


def above(effects: np.ndarray, strong: bool, bar: float = 0.0) -> bool:
    """Return whether a mean is above `bar`, or for a strong test the low end of its interval."""
    own = estimate(effects)
    return bool((own.low if strong and own.n > 1 else own.mean) > bar)


def one(value: float, holds: bool) -> Outcome:
    """Return the outcome of a single number."""
    return Outcome(np.array([float(value)]), bool(holds))


def behaves(s: Studied, strong: bool, what: str, asked: float) -> Outcome:
    """Share of greedy steps into a thing in front; stronger: probability over a free step's."""
    passed = [s.at(name, asked) for name in AHEAD[what]]
    effects = np.concatenate([one.forward for one in passed]) / s.at(NOTHING, asked).forward.mean()
    seeks, enters = (what, asked) == ("goal", HIGH), (what, asked) == ("obstacle", LOW)
    if not strong:
        effects = np.concatenate([one.logits.argmax(-1).numpy() == FORWARD for one in passed])
        return Outcome(effects.astype(float), (effects.mean() >= 0.5) == (seeks or enters))
    if seeks or enters:
        return Outcome(effects, above(effects, True, 1.0 if seeks else 0.5))
    return Outcome(effects, above(-effects, True, -0.5))


def enters(s: Studied, strong: bool, name: str, asked: float, component: str) -> Outcome:
    """Rise of forward without a component; own: the agent avoided, and no longer does."""
    component, before = s.component(component), s.at(name, asked).forward
    rise, free = s.rise(name, asked, component, strong), s.at(NOTHING, asked).forward.mean()
    if not strong:
        return Outcome(rise, before.mean() < free / 2 <= (before + rise).mean())
    others = [s.rise(name, asked, head).mean() for head in range(s.heads) if head != component]
    return Outcome(rise, above(rise, True, max(0, *others, s.random_rise(name, asked, component))))


def one_head(s: Studied, strong: bool, name: str, asked: float) -> Outcome:
    """The number of heads whose removal raises forward, of which there must be one."""
    count = 0
    for head in range(s.heads):
        bar = max(SLIGHT, s.random_rise(name, asked, head) if strong else 0)
        count += above(s.rise(name, asked, head, strong), strong, bar)
    return one(count, count == 1)


def never_pushes(s: Studied, strong: bool, name: str, asked: float, head: str) -> Outcome:
    """What a head adds to forward - right; stronger: the fall of forward without it."""
    component = s.component(head)
    if strong:
        rise = s.rise(name, asked, component)
        return Outcome(-rise, above(rise, True, -SLIGHT))
    added = (s.written(s.at(name, asked), component) @ s.reader).double().numpy()
    return Outcome(added, added.mean() <= 0)


def amplified(s: Studied, strong: bool, name: str, asked: float, head: str) -> Outcome:
    """How far the MLP follows in forward - right what replacing a head changes."""
    component, before = s.component(head), s.at(name, asked)
    moved = (s.change(before, component, strong) @ s.reader).mean().sign()
    after = s.written(s.without(name, asked, component, strong), MLP)
    effects = ((after - s.written(before, MLP)) @ s.reader * moved).double().numpy()
    return Outcome(effects, above(effects, strong))


def embedded(s: Studied, strong: bool, what: str, sign: int) -> Outcome:
    """What the embedding of the state adds; stronger: by how much it raises forward."""
    free, each = s.embedding(s.windows[NOTHING, HIGH, 1]).mean(0), []
    for name in AHEAD[what]:
        own = s.embedding(s.windows[name, HIGH, 1]) - free
        for asked in ASKED:
            before = s.at(name, asked)
            after = Passed(before.logits - (own @ s.model.head.weight.T).double(), {})
            each.append(
                before.forward - after.forward if strong else (own @ s.reader).double().numpy()
            )
    return Outcome(np.concatenate(each), all(above(sign * own, strong) for own in each))


def of_return(s: Studied, strong: bool, turning: bool) -> Outcome:
    """The embedding of a unit of return along a direction; stronger: what heads write of 0.9."""
    embed, passed = s.model.tokenizer.inputs[RETURN_TO_GO], s.at(NOTHING, HIGH)
    unit = embed(torch.tensor([[1.0]])) - embed(torch.tensor([[0.0]]))
    ahead, turn = (
        (s.of_token(passed, 0, one).sum(1) if strong else unit @ one).double().numpy()
        for one in (s.reader, s.turn)
    )
    if turning:
        return Outcome(turn, abs(turn.mean()) < abs(ahead.mean()) / 2)
    return Outcome(ahead, above(ahead, strong))


def cell_in_front(s: Studied, strong: bool, what: str) -> np.ndarray:
    """Effects of a thing in front on forward - right: by the embedding alone, or in all, [n]."""
    if strong:
        return s.run(s.in_front(CELLS[what])).preference - s.run(s.in_front(EMPTY)).preference
    return (s.cell(CELLS[what]) @ s.reader)[None].double().numpy()


def weighs(s: Studied, strong: bool, what: str, sign: int) -> Outcome:
    """Effect of a wall or goal in front, in place of an empty cell."""
    effects = cell_in_front(s, strong, what)
    return Outcome(effects, above(sign * effects, strong))


def channel(s: Studied, strong: bool, index: int, sign: int) -> Outcome:
    """The weight of a channel of the cell in front, where an encoding has such weights."""
    if strong or s.subject.run.config.model.encoder != "index":
        return UNTESTED
    weight = s.cell(tuple(1 + (k == index) for k in range(3)), (1, 1, 1)) @ s.reader
    return one(weight, sign * weight > 0)


def alike(s: Studied, strong: bool) -> Outcome:
    """Effect of an obstacle in front over that of a goal: between a half and one."""
    ratio = cell_in_front(s, strong, "obstacle").mean() / cell_in_front(s, strong, "goal").mean()
    return one(ratio, 0.5 < ratio < 1)


def inhibited(s: Studied, strong: bool) -> Outcome:
    """Score of the return with something in front, less with nothing; stronger: the attention."""
    head = s.obstacle_head
    if strong:
        empty, *others = (
            s.run(s.in_front(cell)).values[ATTENTION][:, head, -1, 0].double().numpy()
            for cell in (EMPTY, *CELLS.values())
        )
        falls = all(above(empty - own, True) and own.mean() < 0.5 for own in others)
        return Outcome(np.mean(others, 0) - empty, falls)
    tokens = s.model.tokenizer(s.windows[NOTHING, HIGH, 1])[:, 0]
    key = (tokens @ s.qkv[1, head].T + s.key_bias[head]).mean(0) / len(s.key_bias[head]) ** 0.5
    scores = [float(s.qkv[0, head] @ s.cell(cell) @ key) for cell in CELLS.values()]
    return one(np.mean(scores), max(scores) < 0)


def writes(s: Studied, strong: bool) -> Outcome:
    """What the obstacle head writes of an obstacle or goal in front; stronger: as it attends."""
    head, things = s.obstacle_head, (CELLS["obstacle"], CELLS["goal"])
    if strong:
        empty, *others = (
            (
                s.of_token(own, -1, s.reader)[:, head] * own.values[ATTENTION][:, head, -1, -1]
            ).double()
            for own in (s.run(s.in_front(cell)) for cell in (EMPTY, *things))
        )
        changes = [(own - empty).numpy() for own in others]
    else:
        reader = s.out[:, head].T @ s.reader
        changes = [
            (s.qkv[2, head] @ s.cell(cell) @ reader)[None].double().numpy() for cell in things
        ]
    return Outcome(np.mean(changes, 0), all(above(-own, strong) for own in changes))


def attended(s: Studied, strong: bool) -> Outcome:
    """What heads write of the return 0.9; stronger: forward with attention to it, less without."""
    before = s.at(NOTHING, HIGH)
    if not strong:
        added = s.of_token(before, 0, s.reader) * before.values[ATTENTION][:, :, -1, 0]
        return Outcome(effects := added.sum(1).double().numpy(), above(effects, False))

    def to_state(value, point):
        return torch.cat([value[:, :, :-1], torch.eye(2)[1].expand_as(value[:, :, -1:])], 2)

    effects = before.forward - s.run(s.windows[NOTHING, HIGH, 1], {ATTENTION: to_state}).forward
    return Outcome(effects, above(effects, True))


def turns_agree(s: Studied, strong: bool) -> Outcome:
    """Correlation of the logits of both turns; stronger: the variance share of their difference."""
    logits = torch.cat([own.logits for (*_, half), own in s.passed.items() if half]).numpy()
    left, right = logits[:, LEFT], logits[:, RIGHT]
    if not strong:
        return one(r := np.corrcoef(left, right)[0, 1], r > 0.5)
    share = (left - right).var() / 2 / (logits - logits.mean(1, keepdims=True)).var(0).sum()
    return one(share, share < 0.1)


def clockwise(s: Studied, strong: bool) -> Outcome:
    """What heads and MLP add to right - left at a wall; stronger: right less left, with mirrors."""
    if strong:
        effects = -np.mean([s.leftwards(WALL, asked) for asked in ASKED], 0)
        return Outcome(effects, above(effects, True))
    parts = [
        np.mean([(s.written(s.at(WALL, asked), own) @ s.turn).numpy() for asked in ASKED], 0)
        for own in (*range(s.heads), MLP)
    ]
    return Outcome(np.sum(parts, 0, float), all(above(own, False) for own in parts))


def left_bias(s: Studied, strong: bool) -> Outcome:
    """Left less right asked for -1, less that asked for 0.9; stronger: with mirrors."""
    if strong:
        effects = s.leftwards(NOTHING, LOW) - s.leftwards(NOTHING, HIGH)
    else:
        low, high = (s.at(NOTHING, asked).probability for asked in (LOW, HIGH))
        effects = (low - high) @ [1.0, -1.0, 0.0]
    return Outcome(effects, above(effects, strong))


def as_if_high(s: Studied, strong: bool) -> Outcome:
    """Correlation of forward - right asked for -1 and for 0.9; stronger: within each situation."""
    pairs = [np.stack([s.at(name, a).preference for a in (LOW, HIGH)]) for name in SITUATIONS]
    pairs = [own - strong * own.mean(1, keepdims=True) for own in pairs]
    return one(r := np.corrcoef(np.concatenate(pairs, 1))[0, 1], r > 0.5)


def log_probability(s: Studied, window: Window, write=None) -> np.ndarray:
    """Return the log probability of the actions of histories, float64 [n]."""
    logits = s.run(window, write).logits.log_softmax(-1)
    return logits.gather(1, window["action"][:, -1:])[:, 0].numpy()


def late_policy(s: Studied, strong: bool) -> Outcome:
    """Log probability of late actions less that of early ones, where 0.85 or more is left."""
    late, early = (s.histories(part) for part in ((2 / 3, 1.0), (0.0, 1 / 3)))
    late, early = (
        log_probability(s, w)[(w[RETURN_TO_GO][:, -1] >= 0.85).numpy()] for w in (late, early)
    )
    if not len(early) or len(late) < 2:
        return UNTESTED
    return Outcome(effects := late - early.mean(), above(effects, strong))


def excluded(s: Studied, strong: bool, head: str) -> Outcome:
    """Rise of the loss on histories without a head."""
    window, component = s.histories(), s.component(head)
    write = adding(component, s.change(s.run(window), component, strong))
    effects = log_probability(s, window) - log_probability(s, window, write)
    return Outcome(effects, above(effects, strong))


def tests(test: Callable[..., Outcome], *arguments) -> list[Callable[[Studied], Outcome]]:
    """Return the own and the stronger form of a test."""
    return [lambda studied, s=strong: test(studied, s, *arguments) for strong in (False, True)]


PARTS = {
    **{f"1 {what}, {a:g}": tests(behaves, what, a) for a in ASKED for what in AHEAD},
    "2a": tests(enters, ABOVE, LOW, GOAL_HEAD),
    "2b": tests(enters, ABOVE, ZERO, GOAL_HEAD),
    "2c": tests(amplified, ABOVE, LOW, GOAL_HEAD),
    "2d": tests(never_pushes, ABOVE, HIGH, GOAL_HEAD),
    "2e": tests(one_head, ABOVE, LOW),
    "3a": tests(enters, BALL, HIGH, OBSTACLE_HEAD),
    "3b": tests(enters, BALL, ZERO, OBSTACLE_HEAD),
    "3c": tests(never_pushes, BALL, LOW, OBSTACLE_HEAD),
    "3d": tests(one_head, BALL, HIGH),
    "4a": tests(amplified, BALL, HIGH, OBSTACLE_HEAD),
    "4b": tests(enters, SIDE, LOW, MLP),
    "5a": tests(embedded, "wall", -1),
    "5b": tests(embedded, "goal", 1),
    "6a": tests(of_return, False),
    "6b": tests(of_return, True),
    "7a": tests(channel, 0, 1),
    "7b": tests(channel, 1, -1),
    "7c": tests(weighs, "wall", -1),
    "7d": tests(weighs, "goal", 1),
    "8": tests(inhibited),
    "9": tests(writes),
    "10": tests(attended),
    "11a": tests(turns_agree),
    "11b": tests(clockwise),
    "12": tests(alike),
    "14a": tests(left_bias),
    "14b": tests(as_if_high),
    "14c": tests(late_policy),
    "14d": tests(excluded, GOAL_HEAD),
}
