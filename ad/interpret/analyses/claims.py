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

from typing import ClassVar, NamedTuple

import numpy as np
import torch

from ad.errors import ConfigError
from ad.evaluation.scores import compare, estimate
from ad.interpret.analyses.linear import EMPTY, NUMBERS, features_of, input_vectors
from ad.interpret.analyses.studied import (
    ABOVE,
    ASKED,
    ATTENTION,
    BALL,
    FORWARD,
    GOAL_HEAD,
    HIGH,
    LEFT,
    LOW,
    NOTHING,
    OBSTACLE_HEAD,
    RIGHT,
    SIDE,
    SITUATIONS,
    THE_MLP,
    WALL,
    ZERO,
    Studied,
)
from ad.interpret.analysis import Analysis, rows_of
from ad.interpret.contexts import RETURN_TO_GO
from ad.interpret.labeled import BOUNDS, Axes, LabeledArray, with_interval
from ad.interpret.situations import situation_names
from ad.models.conditioned_tokens import ConditionedTokens
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
        is_seen = tokens and has_cells(model.spec.observation[""]) and features_of(model)
        if not (is_plain and world and is_seen):
            raise ConfigError(
                "the claims are about decision transformers of one layer, several heads and one "
                "time step, with conditioned tokens and a linear encoder, without normalization, "
                "on Dynamic Obstacles"
            )

    def run(self, subject):
        """Return the effects, and which parts of claims hold."""
        studied = Studied(subject)
        tested = [outcomes(studied, part) for part in PARTS]
        tests = {"test": ["own", "stronger"]}
        axes = {"claim": list(PARTS), **tests}
        known = [[estimate(one.effects) for one in row] for row in tested]
        effect, low, high = (
            np.array([[getattr(one, name) for one in row] for row in known], float)
            for name in ("mean", *BOUNDS)
        )
        holds = np.array([[one.holds for one in row] for row in tested], float)
        holds[np.isnan(effect)] = np.nan
        about = "effect: mean over observations"
        return {
            **with_interval("effect", effect, np.stack([low, high]), axes, about, "observation"),
            "holds": LabeledArray(holds, axes, "whether a part of a claim holds: 1 or 0"),
            "held": LabeledArray(np.nansum(holds, 0), tests, "number of parts that hold"),
        }

    def table(self, results):
        """Return a row for each part of a claim."""
        header = ["claim", "own test", "stronger test", "holds by its own", "holds by the stronger"]
        return Table(header, rows_of(results, ("effect", "+.3f"), ("holds", ".0f")))


def is_above(effects: np.ndarray, strong: bool, bar: float = 0.0) -> bool:
    """Return whether a mean is above `bar`, or for a strong test the low end of its interval."""
    own = estimate(effects)
    value = own.low if strong and own.n > 1 else own.mean
    return value is not None and bool(value > bar)


def single(value: float, holds: bool) -> Outcome:
    """Return the outcome of a single number."""
    return Outcome(np.array([float(value)]), bool(holds))


def behaves(s: Studied, strong: bool, what: str, asked: float) -> Outcome:
    """Tell how often a greedy step enters; stronger: how forward compares with a free step."""
    passed = [s.at(name, asked) for name in AHEAD[what]]
    effects = np.concatenate([one.forward for one in passed]) / s.at(NOTHING, asked).forward.mean()
    seeks, enters = (what, asked) == ("goal", HIGH), (what, asked) == ("obstacle", LOW)
    if not strong:
        effects = np.concatenate([one.logits.argmax(-1).numpy() == FORWARD for one in passed])
        return Outcome(effects.astype(float), (effects.mean() >= 0.5) == (seeks or enters))
    if seeks or enters:
        return Outcome(effects, is_above(effects, True, 1.0 if seeks else 0.5))
    return Outcome(effects, is_above(-effects, True, -0.5))


def enters(s: Studied, strong: bool, name: str, asked: float, component: str) -> Outcome:
    """Tell how far forward rises without a component, so that the agent no longer avoids it."""
    component, before = s.named(component), s.at(name, asked).forward
    rise, free = s.rise(name, asked, component, strong), s.at(NOTHING, asked).forward.mean()
    if not strong:
        return Outcome(rise, before.mean() < free / 2 <= (before + rise).mean())
    others = [s.rise(name, asked, head).mean() for head in s.heads if head != component]
    bar = max(0, *others, s.random_rise(name, asked, component))
    return Outcome(rise, is_above(rise, True, bar))


def one_head(s: Studied, strong: bool, name: str, asked: float) -> Outcome:
    """Count the heads whose removal raises forward, of which there must be one."""
    count = 0
    for head in s.heads:
        bar = max(SLIGHT, s.random_rise(name, asked, head) if strong else 0)
        count += is_above(s.rise(name, asked, head, strong), strong, bar)
    return single(count, count == 1)


def never_pushes(s: Studied, strong: bool, name: str, asked: float, head: str) -> Outcome:
    """Tell what a head adds to forward - right, or how far forward falls without it."""
    component = s.named(head)
    if strong:
        rise = s.rise(name, asked, component)
        return Outcome(-rise, is_above(rise, True, -SLIGHT))
    added = s.at(name, asked).added(component, s.ahead)
    return Outcome(added, added.mean() <= 0)


def amplified(s: Studied, strong: bool, name: str, asked: float, head: str) -> Outcome:
    """Tell how far the MLP follows in forward - right what replacing a head changes."""
    before = s.at(name, asked)
    after = s.without(name, asked, component := s.named(head), strong)
    moved, effects = (
        after.added(own, s.ahead) - before.added(own, s.ahead) for own in (component, THE_MLP)
    )
    effects = effects * np.sign(moved.mean())
    return Outcome(effects, is_above(effects, strong))


def embedded(s: Studied, strong: bool, what: str, sign: int) -> Outcome:
    """Tell what the embedding of the state adds, or how far it raises forward."""
    free, each = s.at(NOTHING, HIGH).state.mean(0), []
    for name in AHEAD[what]:
        added = ((s.at(name, HIGH).state - free) @ s.model.head.weight.T).double()  # [B, A]
        for asked in ASKED:
            without = (s.at(name, asked).logits - added).softmax(-1)[:, FORWARD].numpy()
            linear = (added @ s.ahead.double()).numpy()
            each.append(s.at(name, asked).forward - without if strong else linear)
    means = np.reshape(each, (-1, len(ASKED), len(each[0]))).mean(1)  # over what is asked for
    return Outcome(means.ravel(), all(is_above(sign * own, strong) for own in each))


def of_return(s: Studied, strong: bool, turning: bool) -> Outcome:
    """Tell what the embedding of a unit of return adds, or what heads write of 0.9."""
    written = input_vectors(s.model)[RETURN_TO_GO][:1]
    if strong:
        written = s.returns_to_go() @ s.ov.sum(0)
    ahead, turn = (written @ s.readers.T).double().numpy().T
    if turning:
        return Outcome(turn, abs(turn.mean()) < abs(ahead.mean()) / 2)
    return Outcome(ahead, is_above(ahead, strong))


def cell_in_front(s: Studied, strong: bool, what: str) -> np.ndarray:
    """Return effects of a thing in front, by the embedding alone or by the whole model, [n]."""
    if strong:
        return s.in_front(CELLS[what]).preference - s.in_front(EMPTY).preference
    return (s.added_in_front(CELLS[what]) @ s.readers[0])[None].double().numpy()


def weighs(s: Studied, strong: bool, what: str, sign: int) -> Outcome:
    """Tell the effect of a wall or goal in front, in place of an empty cell."""
    effects = cell_in_front(s, strong, what)
    return Outcome(effects, is_above(sign * effects, strong))


def channel(s: Studied, strong: bool, name: str, sign: int) -> Outcome:
    """Tell the weight of a channel of the cell in front, where an encoding has such weights."""
    if strong or s.features.channels != NUMBERS:
        return UNTESTED
    weight = s.features.vectors[NUMBERS.index(name), s.front] @ s.readers[0]
    return single(float(weight), bool(sign * weight > 0))


def alike(s: Studied, strong: bool) -> Outcome:
    """Divide the effect of an obstacle in front by that of a goal: between a half and one."""
    ratio = cell_in_front(s, strong, "obstacle").mean() / cell_in_front(s, strong, "goal").mean()
    return single(ratio, 0.5 < ratio < 1)


def inhibited(s: Studied, strong: bool) -> Outcome:
    """Tell how the score of the return, or the attention to it, changes with what is in front."""
    head = s.heads.index(s.obstacle_head)
    if strong:
        things = (EMPTY, *CELLS.values())
        empty, *others = (s.in_front(thing).attention(head) for thing in things)
        falls = all(is_above(empty - own, True) and own.mean() < 0.5 for own in others)
        return Outcome(np.mean(others, 0) - empty, falls)
    key = s.returns_to_go().mean(0)
    scores = [float(s.added_in_front(thing) @ s.qk[head, :-1] @ key) for thing in CELLS.values()]
    return single(float(np.mean(scores)), max(scores) < 0)


def writes(s: Studied, strong: bool) -> Outcome:
    """Tell what the obstacle head would write, or writes, of an obstacle or goal in front."""
    head, things = s.heads.index(s.obstacle_head), (CELLS["obstacle"], CELLS["goal"])
    if strong:
        passed = [
            s.in_front(thing).added_by_token(s.ahead)[:, head, -1] for thing in (EMPTY, *things)
        ]
        changes = [own - passed[0] for own in passed[1:]]
    else:
        written = [s.added_in_front(thing) @ s.ov[head, :-1] @ s.readers[0] for thing in things]
        changes = [own[None].double().numpy() for own in written]
    return Outcome(np.mean(changes, 0), all(is_above(-own, strong) for own in changes))


def attended(s: Studied, strong: bool) -> Outcome:
    """Tell what heads write of the return 0.9, or forward with attention to it less without."""
    before = s.at(NOTHING, HIGH)
    if not strong:
        added = before.added_by_token(s.ahead)[:, :, 0].sum(1)
        return Outcome(added, is_above(added, False))

    def to_state(value, point):
        return torch.cat([value[:, :, :-1], torch.eye(2)[1].expand_as(value[:, :, -1:])], 2)

    after = s.run(s.contexts[NOTHING, HIGH, 1], {ATTENTION: to_state})
    effects = before.forward - after.forward
    return Outcome(effects, is_above(effects, True))


def turns_agree(s: Studied, strong: bool) -> Outcome:
    """Correlate the logits of both turns, or tell the share of variance of their difference."""
    logits = torch.cat([own.logits for (*_, half), own in s.passed.items() if half]).numpy()
    left, right = logits[:, LEFT], logits[:, RIGHT]
    if not strong:
        return single(r := np.corrcoef(left, right)[0, 1], r > 0.5)
    share = (left - right).var() / 2 / (logits - logits.mean(1, keepdims=True)).var(0).sum()
    return single(share, share < 0.1)


def clockwise(s: Studied, strong: bool) -> Outcome:
    """Tell what heads and MLP add to right - left at a wall, or its bias over mirror images."""
    if strong:
        effects = -np.mean([s.leftwards(WALL, asked) for asked in ASKED], 0)
        return Outcome(effects, is_above(effects, True))
    parts = [
        np.mean([s.at(WALL, asked).added(own, s.turn) for asked in ASKED], 0)
        for own in (*s.heads, THE_MLP)
    ]
    return Outcome(np.sum(parts, 0), all(is_above(own, False) for own in parts))


def left_bias(s: Studied, strong: bool) -> Outcome:
    """Tell left less right asked for -1, less asked for 0.9; stronger: over mirror images."""
    if strong:
        effects = s.leftwards(NOTHING, LOW) - s.leftwards(NOTHING, HIGH)
    else:
        low, high = (s.at(NOTHING, asked).probability for asked in (LOW, HIGH))
        effects = (low - high) @ [1.0, -1.0, 0.0]
    return Outcome(effects, is_above(effects, strong))


def as_if_high(s: Studied, strong: bool) -> Outcome:
    """Correlate forward - right asked for -1 and for 0.9, over all or within situations."""
    pairs = [np.stack([s.at(name, a).preference for a in (LOW, HIGH)]) for name in SITUATIONS]
    pairs = [own - strong * own.mean(1, keepdims=True) for own in pairs]
    return single(r := np.corrcoef(np.concatenate(pairs, 1))[0, 1], r > 0.5)


def late_policy(s: Studied, strong: bool) -> Outcome:
    """Tell the log probability of late actions less that of early ones, with 0.85 or more left."""
    late, early = (s.histories(part) for part in ((2 / 3, 1.0), (0.0, 1 / 3)))
    late, early = (
        s.log_probability(own)[(own[RETURN_TO_GO][:, -1] >= 0.85).numpy()] for own in (late, early)
    )
    if min(len(early), len(late)) < 2:
        return UNTESTED
    found = compare({"late": late, "early": early}, "early")["late"].difference
    low = found.low if strong else found.mean
    return single(late.mean() - early.mean(), low is not None and low > 0)


def excluded(s: Studied, strong: bool, head: str) -> Outcome:
    """Tell how far the loss on histories rises without a head."""
    window = s.histories()
    write = s.replaced(s.named(head), strong, len(window["action"]))
    effects = s.log_probability(window) - s.log_probability(window, write)
    return Outcome(effects, is_above(effects, strong))


PARTS: dict[str, tuple] = {  # the test of a part of a claim, with its arguments
    **{f"1 {what}, {a:g}": (behaves, what, a) for a in ASKED for what in AHEAD},
    "2a": (enters, ABOVE, LOW, GOAL_HEAD),
    "2b": (enters, ABOVE, ZERO, GOAL_HEAD),
    "2c": (amplified, ABOVE, LOW, GOAL_HEAD),
    "2d": (never_pushes, ABOVE, HIGH, GOAL_HEAD),
    "2e": (one_head, ABOVE, LOW),
    "3a": (enters, BALL, HIGH, OBSTACLE_HEAD),
    "3b": (enters, BALL, ZERO, OBSTACLE_HEAD),
    "3c": (never_pushes, BALL, LOW, OBSTACLE_HEAD),
    "3d": (one_head, BALL, HIGH),
    "4a": (amplified, BALL, HIGH, OBSTACLE_HEAD),
    "4b": (enters, SIDE, LOW, THE_MLP),
    "5a": (embedded, "wall", -1),
    "5b": (embedded, "goal", 1),
    "6a": (of_return, False),
    "6b": (of_return, True),
    "7a": (channel, "object", 1),
    "7b": (channel, "color", -1),
    "7c": (weighs, "wall", -1),
    "7d": (weighs, "goal", 1),
    "8": (inhibited,),
    "9": (writes,),
    "10": (attended,),
    "11a": (turns_agree,),
    "11b": (clockwise,),
    "12": (alike,),
    "14a": (left_bias,),
    "14b": (as_if_high,),
    "14c": (late_policy,),
    "14d": (excluded, GOAL_HEAD),
}


def outcomes(studied: Studied, part: str) -> tuple[Outcome, Outcome]:
    """Return the outcome of the own and of the stronger test of a part of a claim."""
    test, *arguments = PARTS[part]
    return test(studied, False, *arguments), test(studied, True, *arguments)
