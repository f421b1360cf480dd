"""The known causes of a world that does not learn, and what they are read from.

A finding is a function of the Evidence: a sentence of what was seen, the likely cause, and the
settings that change it, or None. Those of the world come first, then those of the histories, then
those of the model, since what goes wrong early shows later, too. What a sentence calls likely is
not proved.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from types import FunctionType

import numpy as np
from gymnasium.spaces import Discrete

from ad.config.schema import Experiment
from ad.data.episodes import episodes, episodes_to
from ad.evaluation.source_returns import is_flat
from ad.methods import build_method
from ad.registry import SOURCES
from ad.rollout.rollout import Rollout
from ad.runtime.run import Run

ALMOST = 0.95  # a share from which it counts as all
WHOLE_RISE = 0.8  # of the source's rise, after which it counts as learned
FIRST = 5  # episodes of an actor, from which its rise begins
LEAST_RISE = 0.05  # of the episodes of that rise that a context has to span
RARE = 0.05  # of the episodes: with fewer rewards than that a source learns from luck
MOST_UNSEEN = 0.1  # of what the model observes that no history has


@dataclass
class Evidence:
    """The observations of an experiment that findings are made of; unused fields stay empty.

    `random` is a rollout of the same random actions in all `tasks`, first train tasks, then
    held-out ones. `histories` has the arrays [actors, T] of train tasks, `share` the part of
    `source.env_steps` that they hold. `ratio` is the loss on whole windows over that on single
    transitions, `model` the rollout on held-out tasks. `entropy` is that of its actions as a share
    of that of uniform ones: in first episodes, in the last third, and there at temperature 1.
    """

    run: Run
    tasks: np.ndarray
    num_train: int
    random: Rollout
    histories: list[Mapping[str, np.ndarray]] = field(default_factory=list)
    share: float = 1.0
    losses: np.ndarray = field(default_factory=lambda: np.zeros(0))
    ratio: float | None = None
    model: Rollout | None = None
    entropy: tuple[float, float, float] = (0.5, 0.5, 0.5)

    @property
    def config(self) -> Experiment:
        """The experiment."""
        return self.run.config

    @cached_property
    def curves(self) -> list[tuple[np.ndarray, np.ndarray]]:
        """The returns and the lengths of the whole episodes of each actor, [E] each."""
        found = []
        for arrays in self.histories:
            whole = episodes(arrays["terminated"] | arrays["truncated"], arrays["reward"])
            for actor in np.unique(whole.actor):
                own = whole.actor == actor
                found.append((whole.returns[own], (whole.stop - whole.start)[own]))
        return found

    @cached_property
    def ends(self) -> np.ndarray:
        """The mean return of the first episodes and of the last tenth of each actor's, [M, 2]."""
        tenths = [(returns, -(-len(returns) // 10)) for returns, _ in self.curves]
        means = [(own[: min(count, FIRST)].mean(), own[-count:].mean()) for own, count in tenths]
        return np.array(means).reshape(-1, 2)

    @cached_property
    def random_return(self) -> float:
        """The mean return of random actions, exact where the world knows it."""
        exact = self.run.world.random_return(self.tasks, self.config.env.episode_length)
        return float(np.nanmean(self.random.returns if exact is None else exact))

    @cached_property
    def best_return(self) -> float | None:
        """The mean optimal return, else that of the source at its end; None without both."""
        if self.optimal is not None:
            return float(np.nanmean(self.optimal))
        return float(self.ends[:, 1].mean()) if len(self.ends) else None

    @cached_property
    def rewards(self) -> np.ndarray:
        """The different rewards that random actions and the source had."""
        own = [self.random.trajectory["reward"], *(arrays["reward"] for arrays in self.histories)]
        return np.unique(np.concatenate([np.unique(rewards) for rewards in own]))

    @cached_property
    def optimal(self) -> np.ndarray | None:
        """The optimal return of each task, [K]; None where the world does not know one."""
        best = self.run.world.optimal_return(self.tasks, self.config.env.episode_length)
        return None if best is None or not np.isfinite(best).any() else best

    @cached_property
    def pays_the_same(self) -> bool:
        """Whether every reward is the same, and so is the return of every random episode."""
        returns = self.random.returns
        return len(self.rewards) < 2 and not np.ptp(returns[np.isfinite(returns)])

    @cached_property
    def episodes_to_learn(self) -> float | None:
        """The episodes after which the mean actor has most of its rise; None without a rise."""
        if not len(self.curves) or is_flat(self.ends):
            return None
        shortest = min(len(returns) for returns, _ in self.curves)
        mean = np.mean([returns[:shortest] for returns, _ in self.curves], axis=0)
        low, high = self.ends.mean(0)
        return episodes_to(mean, low + WHOLE_RISE * (high - low)) or shortest

    @property
    def is_within_episodes(self) -> bool:
        """Whether a context of the method ends with its episode."""
        return build_method(self.config.method).within_episodes

    @property
    def first_length(self) -> float:
        """The mean env steps of the first episodes of each actor."""
        return float(np.mean([lengths[:FIRST].mean() for _, lengths in self.curves]))

    @property
    def context_episodes(self) -> float:
        """The episodes of mean length that a context holds."""
        mean = np.mean([lengths.mean() for _, lengths in self.curves])
        return float(self.config.sequence_length / mean)

    @property
    def better_stride(self) -> int:
        """The history stride with which the source's rise takes as many episodes as a context."""
        return max(1, round(self.episodes_to_learn / np.clip(self.context_episodes, 2, 8)))

    @cached_property
    def equal_tasks(self) -> np.ndarray:
        """Whether equal actions had equal consequences in two tasks, bool [K, K].

        Tasks whose rewards are all the same say nothing and are equal to none. Nor do those, where
        the optimum is known, of which random actions saw less than the best: two may share a part.
        """
        played = self.random.trajectory
        flat = np.concatenate(
            [np.stack([own.tobytes() for own in values])[:, None] for values in played.values()], 1
        )
        says = np.ptp(played["reward"], axis=1) > 0
        if self.optimal is not None:
            says &= np.nanmax(self.random.returns, 1) >= ALMOST * self.optimal
        return (flat[:, None] == flat).all(2) & says & says[:, None]

    @cached_property
    def observation_names_the_task(self) -> bool:
        """Whether an observation, or entries of it that never change, differ in all train tasks."""
        for name, values in self.random.trajectory.items():
            if not name.startswith("observation"):
                continue
            own = values[: self.num_train].reshape(self.num_train, values.shape[1], -1)
            fixed = own[:, 0][:, (own == own[:, :1]).all((0, 1))]
            if len(np.unique(fixed, axis=0)) == self.num_train:
                return True
            seen = [set(map(bytes, np.ascontiguousarray(task))) for task in own]
            recurs = all(len(rows) < values.shape[1] / 2 for rows in seen)
            if recurs and sum(map(len, seen)) == len(set.union(*seen)):
                return True
        return False

    @cached_property
    def truncated_at_the_end(self) -> tuple[float, bool]:
        """The truncated share of the source's last tenth, and whether other returns are higher."""
        kinds, returns = [], []
        for arrays in self.histories:
            terminated = arrays["terminated"]
            whole = episodes(terminated | arrays["truncated"], arrays["reward"])
            late = whole.start >= 0.9 * terminated.shape[1]
            kinds.append(~terminated[whole.actor, whole.stop - 1][late])
            returns.append(whole.returns[late])
        truncated, known = np.concatenate(kinds), np.concatenate(returns)
        if truncated.all() or not truncated.any():
            return float(truncated.mean()), False
        return float(truncated.mean()), known[~truncated].mean() > known[truncated].mean()

    @cached_property
    def unseen(self) -> tuple[float, int, int] | None:
        """The share of the model's observations that no history has, and how many one has, of all.

        None unless an observation is an index.
        """
        space = self.run.world.single_observation_space
        if self.model is None or not self.histories or not isinstance(space, Discrete):
            return None
        known = np.zeros(int(space.n), bool)
        for arrays in self.histories:
            known[np.unique(arrays["observation"])] = True
        played = self.model.trajectory
        met = played["observation"][played["episode"] >= 0]
        return float((~known[met]).mean()), int(known.sum()), len(known)

    @cached_property
    def learns(self) -> bool:
        """Whether the model has 70 % of what is to be gained over random actions, at its end."""
        if self.model is None or self.best_return is None:
            return False
        if self.optimal is None and is_flat(self.ends):  # the best known may be as bad as random
            return False
        gained = _last(self.model).mean() - self.random_return
        return gained > 0.7 * max(self.best_return - self.random_return, 0)


def summary(e: Evidence) -> str:
    """Return the returns of random actions, the source and the model in one sentence."""
    text = f"random actions have a return of {e.random_return:.3g}"
    if len(e.ends):
        first, end = e.ends.mean(0)
        text += f", the source {first:.3g} at first and {end:.3g} at the end"
        text += f" of the first {e.share:.0%} of its env steps" if e.share < 1 else ""
    if e.model is not None:
        first, end = np.nanmean(e.model.returns[:, 0]), _last(e.model).mean()
        text += f", the model {first:.3g} at first and {end:.3g} at the end on held-out tasks"
    return text + ("" if e.optimal is None else f"; the optimum is {np.nanmean(e.optimal):.3g}")


def findings(e: Evidence) -> dict[str, str]:
    """Return the sentences of the findings by the name of their function, likely causes first.

    What only makes learning hard is left out where the model learns, and what only follows from a
    finding is, too.
    """
    found = {}
    for finding in (*OF_THE_WORLD, *(() if e.learns else OF_THE_LEARNING)):
        if sentence := finding(e):
            found[finding.__name__] = sentence
            if finding in ENOUGH:
                break
    return found


def rewards_are_equal(e: Evidence) -> str | None:
    """Tell of rewards that pay for time: nothing says which actions are good."""
    if not e.pays_the_same or e.rewards[0] == 0:
        return None
    return (
        f"saw: every reward is {e.rewards[0]:.3g}; likely: the world pays for time, not for "
        "actions, and the reward token has one value; change: the rewards of env.id"
    )


def rewards_are_rare(e: Evidence) -> str | None:
    """Tell of rewards that are hardly ever seen."""
    returns = [own for own, _ in e.curves] or [e.random.returns[np.isfinite(e.random.returns)]]
    share = float(np.mean(np.concatenate(returns) != 0))
    if share > RARE:
        return None
    player = e.config.source.algorithm if e.histories else "random actions"
    return (
        f"saw: {share:.2%} of the episodes of {player} have a reward other than 0; likely: the "
        "reward is too sparse for the exploration; change: env.episode_length, env.kwargs (a "
        "nearer start, a dense reward), source.env_steps, or another source.algorithm"
    )


def tasks_are_equal(e: Evidence) -> str | None:
    """Tell of tasks in which the same actions have the same consequences."""
    equal = e.equal_tasks
    if not (len(e.tasks) > 1 and equal[0].all()):
        return None
    return (
        f"saw: the same random actions had the same rewards and observations in all {len(equal)} "
        "tasks; likely: the tasks do not differ, and a context has nothing to tell; change: "
        "env.tasks, or what env.id does with its task"
    )


def held_out_tasks_are_train_tasks(e: Evidence) -> str | None:
    """Tell of held-out tasks that are the same as train tasks by another name."""
    leaked = np.any(e.equal_tasks[e.num_train :, : e.num_train], axis=1)
    if not leaked.any() or e.equal_tasks[0].all():
        return None
    return (
        f"saw: in {leaked.sum()} of {len(leaked)} held-out tasks the same random actions had the "
        "rewards and observations of a train task; likely: they are equal tasks by other names, "
        "and the scores on held-out tasks are scores of memory; change: env.tasks, split.held_out"
    )


def observation_tells_the_task(e: Evidence) -> str | None:
    """Tell of observations that name the task: no context is needed."""
    if e.num_train < 2 or not e.observation_names_the_task:
        return None
    return (
        "saw: an observation alone says which train task it is; likely: the model learns tasks by "
        "heart in place of learning in its context; change: the observation of env.id, env.kwargs"
    )


def random_actions_are_as_good(e: Evidence) -> str | None:
    """Tell of worlds in which nothing is to be gained."""
    if e.optimal is None or e.pays_the_same:
        return None
    best, own = float(np.nanmean(e.optimal)), e.random_return
    if best - own > (1 - ALMOST) * max(abs(best), abs(own)):
        return None
    return (
        f"saw: random actions have a return of {own:.3g}, the optimum is {best:.3g}; likely: "
        "there is nothing to learn; change: env.episode_length (shorter), env.kwargs (larger)"
    )


def episodes_are_too_short(e: Evidence) -> str | None:
    """Tell of tasks whose reward cannot be reached before the episode is truncated."""
    length = e.config.env.episode_length
    now, later = (e.run.world.optimal_return(e.tasks, steps) for steps in (length, 8 * length))
    if now is not None and (lost := np.mean((now <= 0) & (later > 0))) > 1 - ALMOST:
        return (
            f"saw: in {lost:.0%} of the tasks no policy can have a reward within {length} env "
            "steps; likely: episodes are too short; change: env.episode_length"
        )
    if now is not None or not e.histories or is_flat(e.ends):
        return None
    truncated, better = e.truncated_at_the_end
    if truncated < 0.5 or not better:
        return None
    return (
        f"saw: {truncated:.0%} of the source's last episodes are truncated after {length} env "
        "steps, and those that end by themselves have higher returns; likely: episodes are too "
        "short; change: env.episode_length"
    )


def source_does_not_improve(e: Evidence) -> str | None:
    """Tell of histories without improvement: a model cannot distill what they lack."""
    source = SOURCES.load(e.config.source.algorithm)
    best = None if e.optimal is None else float(np.nanmean(e.optimal))
    is_told = source.privileged_info != "nothing" or e.pays_the_same
    if not len(e.ends) or is_told or not is_flat(e.ends, best):
        return None
    first, end = e.ends.mean(0)
    part = "" if e.share == 1 else f" of {e.share:.0%} of source.env_steps"
    if end - e.random_return > 0.2 * max(abs(end), abs(e.random_return)):
        cause = "it learns within its first episodes; change: source.settings (a slower learner)"
    else:
        cause = "it does not learn; change: source.env_steps, source.settings (its learning rate)"
    return (
        f"saw: the return of {e.config.source.algorithm} is {first:.3g} in first episodes, "
        f"{end:.3g} in the last tenth{part}, and {e.random_return:.3g} at random; likely: {cause}"
    )


def context_is_too_short(e: Evidence) -> str | None:
    """Tell of contexts with less than two episodes: nothing is seen to get better."""
    length = e.config.sequence_length
    if not e.curves or e.is_within_episodes or length >= 2 * e.first_length:
        return None
    what = "an episode" if length < e.first_length else "two episodes"
    return (
        f"saw: a context has {length} transitions, and early episodes {e.first_length:.0f} env "
        f"steps; likely: the context holds less than {what}, and forgets what an episode taught "
        "before the next one ends; change: data.context_length, training.segments, "
        "env.episode_length (shorter)"
    )


def stride_is_too_large(e: Evidence) -> str | None:
    """Tell of thinned histories that jump from nothing to the end."""
    stride, learned = e.config.data.history_stride, e.episodes_to_learn
    if learned is None or e.is_within_episodes or stride == 1 or learned >= stride:
        return None
    return (
        f"saw: the source has {WHOLE_RISE:.0%} of its rise after {learned:.0f} episodes, and a "
        f"training sequence has every {stride}th; likely: sequences jump from nothing to the end, "
        f"and do not show how; change: data.history_stride (to about {e.better_stride})"
    )


def stride_is_too_small(e: Evidence) -> str | None:
    """Tell of contexts that show no improvement, since it is much slower."""
    stride, learned = e.config.data.history_stride, e.episodes_to_learn
    if learned is None or e.is_within_episodes:
        return None
    spanned = e.context_episodes * stride / learned
    if spanned >= LEAST_RISE:
        return None
    return (
        f"saw: the source has {WHOLE_RISE:.0%} of its rise after {learned:.0f} episodes, and a "
        f"context spans {spanned:.1%} of these; likely: no window shows improvement; change: "
        f"data.history_stride (to about {e.better_stride}), data.context_length"
    )


def histories_cover_little(e: Evidence) -> str | None:
    """Tell of observations that the model meets and no history has."""
    if (unseen := e.unseen) is None or unseen[0] <= MOST_UNSEEN:
        return None
    share, known, total = unseen
    return (
        f"saw: {share:.0%} of the env steps of the model are in observations that no history has "
        f"({known} of {total} are in one); likely: the source explores too little; change: "
        "source.settings (exploration), source.algorithm, split.num_train_tasks"
    )


def rewards_are_not_read(e: Evidence) -> str | None:
    """Tell of models that cannot tell a good action from a bad one."""
    if e.model is None or e.config.model.reward != "none":
        return None
    return (
        "saw: model.reward is none; likely: the model cannot see which actions were good; change: "
        "model.reward"
    )


def loss_does_not_fall(e: Evidence) -> str | None:
    """Tell of trainings that go nowhere."""
    if not len(e.losses):
        return None
    rate, tenth = e.config.training.learning_rate, max(1, len(e.losses) // 10)
    bad = np.isnan(e.losses).sum()
    first, last = e.losses[0], e.losses[-tenth:]
    end = np.nan if np.isnan(last).all() else np.nanmean(last)
    if not bad and end < 0.98 * first:
        return None
    is_high = bad or np.max(e.losses) > 1.5 * first or end > 1.02 * first
    numbers = f"{bad} of {len(e.losses)} losses are not finite" if bad else f"the loss is {end:.3g}"
    return (
        f"saw: {numbers} after {len(e.losses)} train steps, and {first:.3g} at first; likely: the "
        f"learning rate {rate:g} is too {'high' if is_high else 'low'}; change: "
        f"training.learning_rate, training.{'gradient_norm' if is_high else 'steps'}"
    )


def actions_are_uniform(e: Evidence) -> str | None:
    """Tell of policies that are as good as random."""
    _, acting, model = e.entropy
    if acting < 0.98:
        return None
    cause = "the model has learned nothing yet; change: training.steps, training.learning_rate"
    if model < acting - 0.02:
        temperature = e.config.evaluation.temperature
        cause = f"the temperature {temperature:g} is too high; change: evaluation.temperature"
    return (
        f"saw: after many episodes the entropy of actions is {acting:.1%} of that of uniform ones, "
        f"{model:.1%} at temperature 1; likely: {cause}"
    )


def actions_are_certain(e: Evidence) -> str | None:
    """Tell of policies that do not explore a task that they cannot know yet."""
    acting, settings = e.entropy[0], e.config.evaluation
    if acting > 0.02:
        return None
    cause = "the model is sure of one policy; change: training.steps (fewer), more train tasks"
    if settings.action == "greedy":
        cause = "greedy actions do not explore; change: evaluation.action"
    elif settings.temperature < 0.5:
        cause = (
            f"the temperature {settings.temperature:g} is too low; change: evaluation.temperature"
        )
    return (
        f"saw: in first episodes on held-out tasks the entropy of actions is {acting:.1%} of that "
        f"of uniform ones; likely: {cause}"
    )


def context_does_not_help(e: Evidence) -> str | None:
    """Tell of labels that a single transition predicts as well as a context."""
    if e.ratio is None or e.ratio < ALMOST or e.is_within_episodes:
        return None
    return (
        f"saw: the loss on whole windows is {e.ratio:.0%} of that on single transitions; likely: "
        "actions can be predicted without a context, or the training was too short to use it; "
        "change: env.tasks, data.history_stride, data.context_length, training.steps"
    )


OF_THE_WORLD: tuple[FunctionType, ...] = (
    rewards_are_equal,
    tasks_are_equal,
    held_out_tasks_are_train_tasks,
    random_actions_are_as_good,
    episodes_are_too_short,
)
OF_THE_LEARNING: tuple[FunctionType, ...] = (
    rewards_are_rare,
    observation_tells_the_task,
    context_is_too_short,
    rewards_are_not_read,
    source_does_not_improve,
    stride_is_too_large,
    stride_is_too_small,
    loss_does_not_fall,
    actions_are_certain,
    actions_are_uniform,
    histories_cover_little,
    context_does_not_help,
)
ENOUGH = (rewards_are_equal, rewards_are_rare, source_does_not_improve, loss_does_not_fall)


def _last(played: Rollout) -> np.ndarray:
    """Return the returns of the last third of the whole episodes of each environment, [M]."""
    whole = [own[np.isfinite(own)] for own in played.returns]
    return np.concatenate([own[-max(1, len(own) // 3) :] for own in whole])
