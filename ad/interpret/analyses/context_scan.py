"""The context scan: what a model does when its context differs from the evaluation's.

Four things are varied without training: the scale of the rewards that the tokens encode, the length
of the context, the temperature of the actions, and a prompt. A prompt is the early or the last part
of a source agent's learning history, which the context of a rollout begins with (Laskin et al.
2022, arXiv 2210.14215, section 5). Each variant plays the evaluation's episodes, with a prompt on
train tasks, else on held-out tasks. Variants without a prompt are also compared by action
probabilities at the last decisions of the same contexts, where the intact model has a temperature
of 1.

What a memory keeps is told by `reach`: of each context a reward above 0 is drawn and set to 0, and
the action probabilities are compared at the decisions after it, by how many decisions ago it was.
The other rewards of the context are kept, so that they may tell the same, or all set to 0.
"""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import ClassVar

import numpy as np
import torch

from ad.data.episodes import ratio
from ad.data.histories import HistoryStore
from ad.evaluation.scores import UNKNOWN
from ad.interpret.analyses.pairs import NUM_CONTEXTS
from ad.interpret.analyses.varied import PROMPTS, Prompt, VariedPolicy, prompts_of, scaled_rewards
from ad.interpret.analysis import (
    MEASURES,
    ROLLOUT,
    Analysis,
    Subject,
    compared,
    estimate_text,
    estimated,
    over_groups,
    rows_of,
)
from ad.interpret.changes import Queries, make_queries, shortened
from ad.interpret.contexts import Contexts, Environments
from ad.interpret.labeled import Axes, LabeledArray, Results, with_interval
from ad.interpret.relations import encodes_rewards
from ad.methods.policy import Policy
from ad.models.rewards import RewardTable
from ad.models.sequence_model import SequenceModel
from ad.reporting.page import Table
from envs.rng import derive_key
from envs.tasks import task_name

REWARD_SCALES = (0.0, 0.5, 2.0)
SHORTER = (8, 4, 2)  # the context length is divided by them
TEMPERATURES = (0.25, 0.5, 2.0)  # times the temperature of the evaluation
PERIOD = 10  # episodes of the first and the last period
PERIODS = ("all episodes", f"first {PERIOD}", f"last {PERIOD}")
NUM_REWARDS = 64  # that are drawn
OTHERS = ("kept", "set to 0")  # rewards of a context beside the one that is drawn


@dataclass(frozen=True)
class Variant:
    """A difference from the evaluation; `baseline` names the variant that it is compared with."""

    name: str
    baseline: str
    reward_scale: float = 1.0
    temperature: float = 1.0  # a factor
    context_length: int | None = None  # None: the context length of the experiment
    prompt: str | None = None  # EARLY or LATE
    on_train_tasks: bool = False
    problem: str | None = None  # why it is left out


HELD_OUT = Variant("intact", "intact")
TRAIN = Variant("intact, train tasks", "intact, train tasks", on_train_tasks=True)


class ContextScan(Analysis):
    """Returns and actions by rewards, how far back they are, length, temperature and learner."""

    reads_attention: ClassVar[bool] = False
    reads_outputs: ClassVar[bool] = True
    sources: ClassVar[Sequence[str]] = (ROLLOUT,)
    arrays: ClassVar[Axes] = {
        "returns": ("variant", "period"),
        "change": ("variant", "period"),
        "curves": ("variant", "episode"),
        "probabilities": ("variant", "measure"),
        "reach": ("other rewards", "decisions ago", "measure"),
    }

    def run(self, subject):
        """Return the learning curves and returns by variant, and how probabilities differ."""
        scanned = variants(subject)
        names = [variant.name for variant in scanned]
        left_out = [f"{v.name}, {v.problem}" for v in scanned if v.problem]
        played = play(subject, [variant for variant in scanned if not variant.problem])
        episodes, unit = played[HELD_OUT.name].shape[1], subject.contexts.unit
        curves = np.full((len(scanned), episodes), np.nan)
        returns, change = (np.full((len(scanned), len(PERIODS)), np.nan) for _ in range(2))
        interval = np.full((2, *change.shape), np.nan)
        for row, variant in enumerate(scanned):
            if variant.name in played:
                own, other = played[variant.name], played[variant.baseline]  # [K, E]
                curves[row], returns[row] = own.mean(0), periods(own).mean(0)
                change[row], interval[:, row] = over_groups(periods(own) - periods(other))
        axes = {"variant": names, "period": list(PERIODS)}
        about = f"mean return over the episodes of a period and over {unit}s"
        about += f"; left out: {'; '.join(left_out)}" if left_out else ""
        over_episodes = {"variant": names, "episode": list(range(1, episodes + 1))}
        return {
            "returns": LabeledArray(returns, axes, about),
            **with_interval(
                "change", change, interval, axes, "mean return minus the intact variant's", unit
            ),
            "curves": LabeledArray(curves, over_episodes, f"mean return over {unit}s"),
            **_probabilities(subject, scanned),
            **reach(subject.model, subject.contexts),
        }

    def table(self, results):
        """Return the effect of each variant on probabilities and returns."""
        header = ["variant", *results["probabilities"].axes["measure"]]
        header += [f"return, {period}" for period in PERIODS]
        header += [f"change, {PERIODS[0]}"]
        names = ("change", "change_interval")
        change, bounds = (results[name].at(period=PERIODS[0]) for name in names)
        rows = rows_of(results, ("probabilities", ".3f"), ("returns", ".3f"))
        for row, *numbers in zip(rows, change, *bounds, strict=True):
            row.append(estimate_text(*numbers, "+.3f"))
        return Table(header, rows + _reach_rows(results))


def _reach_rows(results: Results) -> list[list[str]]:
    """Return the rows of the table on the effect of a reward by its distance."""
    if "reach" not in results:
        return []
    array, bounds = results["reach"], results["reach_interval"]
    rows = []
    for others, ago in itertools.product(*list(array.axes.values())[:2]):
        label = {"other rewards": others, "decisions ago": ago}
        numbers = zip(array.at(**label), *bounds.at(**label), strict=True)
        cells = [estimate_text(*each, ".3f") for each in numbers]
        first = int(ago)
        distance = f"{first} to {2 * first - 1} decisions" if first > 1 else "1 decision"
        name = f"a reward {distance} ago, others {others}"
        rows.append([name, *cells, *[UNKNOWN] * (len(PERIODS) + 1)])
    return rows


def variants(subject: Subject) -> list[Variant]:
    """Return all variants; those that the model or its policy cannot have with the reason."""
    length = subject.run.config.data.context_length
    divided = {max(length // divisor, 2) for divisor in SHORTER}
    shorter = sorted(count for count in divided if count < length)
    whole = "a state has all that came before" if subject.model.carries else None
    is_greedy = subject.run.config.evaluation.action == "greedy"
    varied = partial(Variant, baseline=HELD_OUT.name)
    found = [HELD_OUT]
    for scale in REWARD_SCALES:
        problem = _scale_problem(subject, scale)
        found.append(varied(f"rewards x{scale:g}", reward_scale=scale, problem=problem))
    found += [varied(f"context of {n}", context_length=n, problem=whole) for n in shorter]
    problem = "the evaluation's actions are greedy" if is_greedy else None
    for factor in TEMPERATURES:
        found.append(varied(f"temperature x{factor:g}", temperature=factor, problem=problem))
    train = replace(TRAIN, problem=_prompt_problem(subject))
    prompted = (replace(train, name=f"{prompt}, train tasks", prompt=prompt) for prompt in PROMPTS)
    return [*found, train, *prompted]


def _scale_problem(subject: Subject, scale: float) -> str | None:
    """Return why the rewards of contexts cannot be scaled, None if they can."""
    spec = subject.model.spec
    if not encodes_rewards(subject.model):
        return "the tokens encode no rewards"
    if subject.policy.looks_ahead:
        return "the policy plans with rewards"
    unknown = [r * scale for r in spec.rewards if r * scale not in spec.rewards]
    if isinstance(subject.model.tokenizer.reward, RewardTable) and unknown:
        return f"no token encodes a reward of {unknown[0]:g}"
    return None


def _prompt_problem(subject: Subject) -> str | None:
    """Return why a rollout cannot begin with a learning history, None if it can."""
    run, needed = subject.run, subject.run.config.data.context_length // 2
    if subject.method.within_episodes:
        return "a context ends with its episode"
    if HistoryStore(run.config).folders(run.split.train_tasks) is None:
        return "the learning histories are missing"
    if prompts_of(subject.dataset, needed) is None:
        return f"some histories are shorter than {needed} transitions"
    return None


def play(subject: Subject, scanned: Sequence[Variant]) -> dict[str, np.ndarray]:
    """Return the returns [K, E] of each variant, by name.

    Variants of a context length, with or without a prompt, are played in one rollout.
    """
    groups: dict[tuple, list[Variant]] = {}
    for variant in scanned:
        key = variant.on_train_tasks, variant.context_length, variant.prompt is not None
        groups.setdefault(key, []).append(variant)
    played = {}
    for group in groups.values():
        names = [variant.name for variant in group]
        played |= dict(zip(names, _rollout(subject, group), strict=True))
    return played


def _rollout(subject: Subject, group: Sequence[Variant]) -> np.ndarray:
    """Return the returns [K, E] of each variant of a group, played with the same seeds."""
    run, first = subject.run, group[0]
    played = environments_of(subject, first.on_train_tasks)
    every = played.times(len(group))
    scales, temperatures = (
        torch.tensor([getattr(v, name) for v in group]).repeat_interleave(len(played.pairs))
        for name in ("reward_scale", "temperature")
    )
    prompt = None
    if first.prompt is not None:
        prompts = prompts_of(subject.dataset, run.config.data.context_length // 2)
        assert prompts is not None  # `check` has left out a variant without them
        names = [task_name(history.task) for history in subject.dataset.histories]
        rows = [names.index(task_name(task)) for _, task in played.pairs]
        prompt = Prompt.together([prompts[v.prompt].select(rows) for v in group if v.prompt])

    def varied(policy: Policy) -> Policy:
        return VariedPolicy(policy, subject.model, scales, temperatures, prompt)

    returns = subject.play(every, varied, first.context_length or 0).returns
    return played.by_group(returns.reshape(len(group), len(played.pairs), -1))


def environments_of(subject: Subject, on_train_tasks: bool = False) -> Environments:
    """Return the environments of a variant, with as many episodes as the evaluation.

    They are at most PERIOD where a context ends with its episode: all episodes are alike there.
    """
    split = subject.run.split
    tasks = split.train_tasks if on_train_tasks else split.held_out_tasks
    played = subject.environments(tasks)
    is_one = subject.method.within_episodes
    return replace(played, episodes=min(played.episodes, PERIOD)) if is_one else played


def periods(returns: np.ndarray) -> np.ndarray:
    """Return the mean returns [K, 3] of all, the first and the last episodes of [K, E]."""
    parts = (returns, returns[:, :PERIOD], returns[:, -PERIOD:])
    return np.stack([part.mean(1) for part in parts], axis=1)


def _probabilities(subject: Subject, scanned: Sequence[Variant]) -> Results:
    """Return the distance of each variant's action probabilities from the intact ones."""
    queries = make_queries(subject.contexts, NUM_CONTEXTS)
    intact, unit = log_probs(subject.model, queries, HELD_OUT), queries.contexts.unit
    count = queries.by_group(np.ones((len(queries.last), 1)))
    mean = np.full((len(scanned), 2), np.nan)
    interval = np.full((2, *mean.shape), np.nan)
    for row, variant in enumerate(scanned):
        if not (variant.problem or variant.on_train_tasks):
            varied = log_probs(subject.model, queries, variant)
            sums = queries.by_group(compared(intact, varied).cpu().numpy())
            mean[row], interval[:, row] = over_groups(ratio(sums, count))
    axes = {"variant": [variant.name for variant in scanned], "measure": MEASURES}
    about = "action probabilities at the same last decisions, against the intact variant: mean"
    return with_interval("probabilities", mean, interval, axes, f"{about} over {unit}s", unit)


def log_probs(model: SequenceModel, queries: Queries, variant: Variant) -> torch.Tensor:
    """Return the log probabilities of actions at the last decisions, float64 [N, A]."""
    if variant.context_length is not None:
        queries = shortened(queries, min(variant.context_length, queries.contexts.length))
    scales = torch.full((len(queries.last),), variant.reward_scale, device=model.head.weight.device)
    with torch.inference_mode(), scaled_rewards(model, scales):
        logits = queries.at_last(model(queries.contexts.window)).double()
    return (logits / variant.temperature).log_softmax(-1)


def reach(model: SequenceModel, contexts: Contexts) -> Results:
    """Return what a reward changes at the decisions after it, by how many decisions ago it was.

    Nothing if the tokens encode no rewards or no context has one above 0 before a decision.
    """
    seen = contexts.reward_seen[np.arange(len(contexts)), contexts.last]
    if not (encodes_rewards(model) and seen.any()):
        return {}
    rng = np.random.default_rng(derive_key(0, "interpret", "reach"))
    rows = rng.permutation(np.flatnonzero(seen))[:NUM_REWARDS]
    contexts = contexts.select(np.tile(rows, NUM_REWARDS // len(rows)))
    entry = np.arange(contexts.length + 1)
    possible = (contexts.reward > 0) & (entry < contexts.last[:, None])
    drawn = (rng.random(possible.shape) * possible).argmax(1)[:, None] == entry
    step = contexts.window["step"].cpu().numpy()
    ago = (step - step[drawn][:, None])[:, 1:]
    bins, after = np.log2(ago.clip(1)).astype(int), (ago > 0) & contexts.decided[:, 1:]
    firsts = 2 ** np.arange(bins[after].max() + 1)
    places = np.broadcast_to(contexts.group[:, None], bins.shape)[after], bins[after]
    count = np.zeros((len(contexts.groups), len(firsts), 1))
    np.add.at(count, places, 1)
    reward, mask = contexts.window["reward"], torch.from_numpy(drawn).to(model.head.weight.device)
    by_group = []
    for kept in (reward, reward * mask):
        changed = kept.masked_fill(mask, 0)
        with torch.inference_mode():
            logits = [model(contexts.window | {"reward": values}) for values in (kept, changed)]
        sums = np.zeros((*count.shape[:2], len(MEASURES)))
        np.add.at(sums, places, compared(*logits).cpu().numpy()[after])
        by_group.append(ratio(sums, count))
    axes = {"other rewards": OTHERS, "decisions ago": firsts.tolist(), "measure": MEASURES}
    about = "action probabilities with a reward and with 0 in its place, the label's number of "
    about += "decisions ago, or up to twice as many"
    return estimated("reach", np.stack(by_group, 1), axes, about, contexts.unit)
