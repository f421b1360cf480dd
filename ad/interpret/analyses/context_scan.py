"""The context scan: what a model does when its context is not that of the evaluation.

Four things are varied without training: the scale of the rewards that the tokens tell, the length
of the context, the temperature of the actions, and the learning history that a rollout begins with,
the early part of a source agent's or its end (as the prompts of Laskin et al. 2022, arXiv
2210.14215, section 5). Each variant plays the evaluation's episodes; the first three are also
compared by action probabilities, at the last decisions of the same contexts, where the intact model
has a temperature of 1. A rollout that begins with a history of its task is played on train tasks,
the others on held-out tasks.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import ClassVar

import numpy as np
import torch

from ad.data.episodes import ratio
from ad.data.histories import HistoryStore
from ad.interpret.analysis import Analysis, Subject, interval_text, over_tasks
from ad.interpret.changes import Queries, make_queries, shortened
from ad.interpret.labeled import BOUND, Axes, LabeledArray, Results
from ad.interpret.pairs import NUM_CONTEXTS
from ad.interpret.relations import tells_rewards
from ad.interpret.varied import EARLY, LATE, Prompt, VariedPolicy, prompts_of, scaled_rewards
from ad.models.rewards import RewardTable
from ad.models.sequence_model import SequenceModel
from ad.reporting.tables import UNKNOWN, Table
from ad.rollout.rollout import Policy, Rollout
from ad.rollout.tasks import policy_of, rollout_envs

REWARD_SCALES = (0.0, 0.5, 2.0)
SHORTER = (8, 4, 2)  # the context length is divided by them
TEMPERATURES = (0.25, 0.5, 2.0)  # times that of the evaluation
PERIOD = 10  # episodes of the first and the last period
PERIODS = ("all episodes", f"first {PERIOD}", f"last {PERIOD}")


@dataclass(frozen=True)
class Variant:
    """A difference from the evaluation. `baseline` names the variant that it is compared with."""

    name: str
    baseline: str
    reward_scale: float = 1.0
    temperature: float = 1.0  # a factor
    context_length: int | None = None  # None for that of the experiment
    prompt: str | None = None  # EARLY or LATE
    on_train_tasks: bool = False
    problem: str | None = None  # why it is left out


HELD_OUT = Variant("intact", "intact")
TRAIN = Variant("intact, train tasks", "intact, train tasks", on_train_tasks=True)


class ContextScan(Analysis):
    """Returns and action probabilities by rewards, length, temperature and learner in context."""

    reads_outputs: ClassVar[bool] = True
    arrays: ClassVar[Axes] = {
        "returns": ("variant", "period"),
        "change": ("variant", "period"),
        "change_interval": (BOUND, "variant", "period"),
        "curves": ("variant", "episode"),
        "probabilities": ("variant", "measure"),
        "probabilities_interval": (BOUND, "variant", "measure"),
    }

    @classmethod
    def problem(cls, subject):
        """Return why the model does not have this analysis, None if it does."""
        if subject.source != "rollout":
            return "needs contexts from rollouts, with which it compares others"
        return super().problem(subject)

    def run(self, subject):
        """Return the learning curves and returns by variant, and how probabilities differ."""
        scanned = variants(subject)
        names = [variant.name for variant in scanned]
        left_out = [f"{v.name}, {v.problem}" for v in scanned if v.problem]
        played = play(subject, [variant for variant in scanned if not variant.problem])
        episodes = num_episodes(subject)
        curves = np.full((len(scanned), episodes), np.nan)
        returns, change = (np.full((len(scanned), len(PERIODS)), np.nan) for _ in range(2))
        interval = np.full((2, *change.shape), np.nan)
        for row, variant in enumerate(scanned):
            if variant.name in played:
                own, other = played[variant.name], played[variant.baseline]  # [K, E]
                curves[row], returns[row] = own.mean(0), periods(own).mean(0)
                change[row], interval[:, row] = over_tasks(periods(own) - periods(other))
        axes = {"variant": names, "period": list(PERIODS)}
        bound = {"bound": ["low", "high"]}
        about = "mean return over the episodes of a period and over tasks"
        about += f"; left out: {'; '.join(left_out)}" if left_out else ""
        results = {
            "returns": LabeledArray(returns, axes, about),
            "change": LabeledArray(change, axes, "mean return minus that of the intact variant"),
            "change_interval": LabeledArray(
                interval, {**bound, **axes}, "95 % interval of change over tasks"
            ),
            "curves": LabeledArray(
                curves,
                {"variant": names, "episode": list(range(1, episodes + 1))},
                "mean return over tasks",
            ),
        }
        return results | _probabilities(subject, scanned)

    def table(self, results):
        """Return what each variant does to probabilities and returns."""
        returns, change, interval = (results[n] for n in ("returns", "change", "change_interval"))
        differences = results["probabilities"]
        header = ["variant", *differences.axes["measure"]]
        header += [f"return, {period}" for period in PERIODS]
        header += [f"change, {PERIODS[0]}", "95 % interval"]
        rows = []
        for name in returns.axes["variant"]:
            low, high = interval.at(variant=name, period=PERIODS[0])
            numbers = [*differences.at(variant=name), *returns.at(variant=name)]
            cells = [UNKNOWN if np.isnan(value) else f"{value:.3f}" for value in numbers]
            changed = change.at(variant=name)[0]
            cells.append(UNKNOWN if np.isnan(changed) else f"{changed:+.3f}")
            rows.append([name, *cells, interval_text(low, high, "+.3f")])
        return Table(header, rows)


def variants(subject: Subject) -> list[Variant]:
    """Return all variants, with why those are left out that the model or its policy cannot have."""
    length = subject.run.config.data.context_length
    shorter = sorted({max(length // divisor, 2) for divisor in SHORTER} - {length})
    greedy = subject.run.config.evaluation.action == "greedy"
    no_temperature = "the evaluation's actions are greedy" if greedy else None
    varied = partial(Variant, baseline=HELD_OUT.name)
    no_prompt = _prompt_problem(subject)
    return [
        HELD_OUT,
        *(
            varied(
                f"rewards x{scale:g}", reward_scale=scale, problem=_scale_problem(subject, scale)
            )
            for scale in REWARD_SCALES
        ),
        *(varied(f"context of {count}", context_length=count) for count in shorter),
        *(
            varied(f"temperature x{factor:g}", temperature=factor, problem=no_temperature)
            for factor in TEMPERATURES
        ),
        replace(TRAIN, problem=no_prompt),
        *(
            replace(TRAIN, name=f"{p}, train tasks", prompt=p, problem=no_prompt)
            for p in (EARLY, LATE)
        ),
    ]


def _scale_problem(subject: Subject, scale: float) -> str | None:
    """Return why the rewards of contexts cannot be scaled, None if they can."""
    spec = subject.model.spec
    if not tells_rewards(subject.model):
        return "the tokens tell no rewards"
    if getattr(subject.policy, "plan_steps", 0):
        return "the policy plans with rewards"
    unknown = [r * scale for r in spec.rewards if r * scale not in spec.rewards]
    if isinstance(subject.model.tokenizer.reward, RewardTable) and unknown:
        return f"no token tells a reward of {unknown[0]:g}"
    return None


def _prompt_problem(subject: Subject) -> str | None:
    """Return why a rollout cannot begin with a learning history, None if it can."""
    run, needed = subject.run, subject.run.config.data.context_length // 2
    if subject.method.within_episodes:
        return "a context ends with its episode"
    if HistoryStore(run.config).folders(run.split.train_tasks) is None:
        return "the learning histories are not there"
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
        returns = _rollout(subject, group).returns
        of_variants = returns.reshape(len(group), -1, returns.shape[1])
        played |= {variant.name: of_variants[row] for row, variant in enumerate(group)}
    return played


def _rollout(subject: Subject, group: Sequence[Variant]) -> Rollout:
    """Return the rollout of all variants of a group, each on all tasks with the same seeds."""
    run, first = subject.run, group[0]
    config, split = run.config, run.split
    if first.context_length is not None:
        config = replace(config, data=replace(config.data, context_length=first.context_length))
    tasks = split.train_tasks if first.on_train_tasks else split.held_out_tasks
    scales, temperatures = (
        torch.tensor([getattr(v, name) for v in group]).repeat_interleave(len(tasks))
        for name in ("reward_scale", "temperature")
    )
    new_policy, prompt = policy_of(config, subject.method, subject.model), None
    if first.prompt is not None:
        of_kinds = prompts_of(subject.dataset, run.config.data.context_length // 2)
        prompt = Prompt.together([of_kinds[variant.prompt] for variant in group])

    def new_varied(num_envs: int) -> Policy:
        return VariedPolicy(new_policy(num_envs), subject.model, scales, temperatures, prompt)

    envs = [(0, task) for task in tasks] * len(group)
    return rollout_envs(config, envs, new_varied, num_episodes(subject))


def num_episodes(subject: Subject) -> int:
    """Return the number of episodes of a rollout: those of the evaluation.

    They are at most PERIOD where a context ends with its episode, since all are alike there.
    """
    episodes = subject.run.config.evaluation.episodes
    return min(episodes, PERIOD) if subject.method.within_episodes else episodes


def periods(returns: np.ndarray) -> np.ndarray:
    """Return the mean returns [K, 3] of all, the first and the last episodes of [K, E]."""
    parts = (returns, returns[:, :PERIOD], returns[:, -PERIOD:])
    return np.stack([part.mean(1) for part in parts], axis=1)


def _probabilities(subject: Subject, scanned: Sequence[Variant]) -> Results:
    """Return how far each variant's action probabilities are from the intact ones, over tasks."""
    queries = make_queries(subject.contexts, NUM_CONTEXTS)
    intact, task = log_probs(subject.model, queries, HELD_OUT), queries.contexts.task
    count = np.bincount(task, minlength=len(queries.contexts.tasks))
    mean = np.full((len(scanned), 2), np.nan)
    interval = np.full((2, *mean.shape), np.nan)
    for row, variant in enumerate(scanned):
        if not (variant.problem or variant.on_train_tasks):
            varied = log_probs(subject.model, queries, variant)
            divergence = (intact.exp() * (intact - varied)).sum(1)
            another = (intact.argmax(1) != varied.argmax(1)).double()
            sums = [np.bincount(task, v.cpu().numpy(), len(count)) for v in (divergence, another)]
            mean[row], interval[:, row] = over_tasks(ratio(np.stack(sums, 1), count[:, None]))
    measures = ["divergence (nats)", "another best action"]
    axes = {"variant": [variant.name for variant in scanned], "measure": measures}
    about = "action probabilities at the same last decisions, against those of the intact variant"
    return {
        "probabilities": LabeledArray(mean, axes, f"{about}: mean over tasks"),
        "probabilities_interval": LabeledArray(
            interval, {"bound": ["low", "high"], **axes}, "95 % interval of probabilities"
        ),
    }


def log_probs(model: SequenceModel, queries: Queries, variant: Variant) -> torch.Tensor:
    """Return the log probabilities of actions at the last decisions, float64 [N, A]."""
    if variant.context_length is not None:
        queries = shortened(queries, min(variant.context_length, queries.contexts.length))
    scales = torch.full((len(queries.last),), variant.reward_scale, device=model.head.weight.device)
    with torch.inference_mode(), scaled_rewards(model, scales):
        logits = queries.at_last(model(queries.contexts.window)).double()
    return (logits / variant.temperature).log_softmax(-1)
