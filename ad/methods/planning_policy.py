"""The policy of a frozen model that plans with its own predictions."""

import copy
from typing import NamedTuple

import torch

from ad.methods.context_policy import ContextPolicy
from ad.methods.contexts import Context
from ad.methods.dynamics import DynamicsModel, Outcome
from ad.methods.in_context_planning import PolicySettings


class Plans(NamedTuple):
    """The best K plans that begin with each of R first actions, [R, K] each.

    value: the rewards of a plan's steps, and `return_weight` times the return of the rest of the
    episode after them. rewards: the rewards alone. ended: whether the episode is over.
    """

    value: torch.Tensor
    rewards: torch.Tensor
    ended: torch.Tensor


class LastStep(NamedTuple):
    """The last action of each plan, and what the model predicts to follow it, [R, K] each.

    parent: the index of the plan that it continues, among the plans of the step before.
    """

    parent: torch.Tensor
    action: torch.Tensor
    reward: torch.Tensor
    next_observation: dict[str, torch.Tensor]


class PlanningPolicy(ContextPolicy[DynamicsModel]):
    """Action logits for N environments in lockstep, from plans that begin at the present decision.

    A beam search (Son et al. 2025) continues each plan with the `num_samples` most
    likely actions that the task has, and keeps the `beam_size` best plans for each first action.
    The model predicts what follows an action, and the predicted reward and next observation enter
    the context of the plan as if they had happened. A plan's value is the sum of its predicted
    rewards and `return_weight` times the predicted return after its last step. A plan has
    `plan_steps` steps; it is over earlier where the model predicts that the episode terminates, and
    at the time limit, and no return is added there. A value adds up the most likely
    rewards or their means, by `rewards`. The context of a plan has the most likely one in any case:
    a mean of listed rewards is a reward that the model has never read.

    The logit of an action is its log probability, plus `plan_weight` times the value of the best
    plan that begins with it, in units of the range of the histories' returns; it is -inf if the
    action was not among the first candidates. So the first action of the best plan is taken where
    it is clearly the best. Where the model predicts no difference, as it does before it has seen a
    reward, the imitated policy decides and explores; for that each first action needs plans of its
    own, since in a common beam plans of the likeliest action would displace the others that tie.
    In the paper candidates are drawn, and the best plan is followed in any case. Here a rollout
    draws from the logits alone, so that its actions do not depend on how environments are batched.
    """

    def __init__(self, model: DynamicsModel, context: Context, settings: PolicySettings):
        super().__init__(model, context)
        self.settings = settings
        self.num_samples = min(settings.num_samples, model.spec.num_actions)
        shape = len(context.fields["valid"]), model.spec.num_actions
        self.action_mask = torch.ones(shape, dtype=torch.bool, device=self.device)

    @property
    def looks_ahead(self) -> bool:
        """Whether it plans."""
        return self.settings.plan_steps > 0

    def set_action_mask(self, mask: torch.Tensor) -> None:
        """Plan with the actions in `mask` alone, bool [N, A]."""
        self.action_mask = mask

    def select(self, envs: torch.Tensor) -> None:
        """Keep the environments `envs`, int64 [M], in this order; indices may repeat."""
        super().select(envs)
        self.action_mask = self.action_mask[envs]

    def act(self, observation, time: torch.Tensor) -> torch.Tensor:
        """Return logits [N, A] for the decision at `observation` and `time`, int64 [N]."""
        logits = self._decide(observation, time)
        if not self.looks_ahead:
            return logits
        first, value = self._plan(logits, time)
        best = value.new_full(logits.shape, float("-inf")).scatter(1, first, value)
        behind = (best - best.amax(1, keepdim=True)) / self.model.return_scale
        return logits.log_softmax(1) + self.settings.plan_weight * behind

    def _decide(self, observation, time: torch.Tensor) -> torch.Tensor:
        """Return the imitated policy's logits [N, A], -inf for actions that the task lacks."""
        self.enter(observation, time)
        self.hidden = self.context.hidden()
        return self.model.logits(self.hidden).masked_fill(~self.action_mask, float("-inf"))

    def _plan(self, logits: torch.Tensor, time: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return first actions, int64 [N, M], and the values [N, M] of the best plans with them.

        `logits` [N, A] and `time` [N] are those of the present decision.
        """
        nothing = torch.zeros(len(time), 1, device=self.device)
        plans = Plans(nothing, nothing, nothing > 0)
        plans, last = self._continue(plans, logits, time, self.num_samples)
        first, shape = last.action, last.action.shape
        # From here on each first action has plans of its own: R = N * M rows.
        plans = Plans(*(values.view(-1, 1) for values in plans))
        imagined = self
        for step in range(1, self.settings.plan_steps):
            if plans.ended.all():
                break
            if self.settings.beam_size > 1:
                imagined = imagined._branch(last.parent)
            elif imagined is self:  # one plan alone continues itself
                imagined = self._split(shape[1])
            logits = imagined._imagine(last, time + step)
            time_of_row = (time + step).repeat_interleave(shape[1])
            plans, last = imagined._continue(plans, logits, time_of_row, self.settings.beam_size)
        return first, plans.value.amax(1).view(shape)

    def _continue(
        self, plans: Plans, logits: torch.Tensor, time: torch.Tensor, beam_size: int
    ) -> tuple[Plans, LastStep]:
        """Return the `beam_size` best continuations of `plans` [R, K] by a step, and that step.

        `logits` [R * K, A] are those of the decisions after `plans`, which are at `time` [R].
        """
        scores, action = logits.topk(self.num_samples, 1)  # [R * K, M]
        features = self.model.features(self.hidden[:, None], action)
        scores, action = (values.view(len(time), -1) for values in (scores, action))
        features = features.view(*action.shape, -1)  # [R, K * M, F]
        outcome = self.model.outcome(features)
        ended = outcome.terminated | (time + 1 >= self.model.spec.episode_length)[:, None]
        return_after = self.settings.return_weight * outcome.return_after
        outcome = outcome._replace(terminated=ended, return_after=return_after)
        rewards = outcome.mean_reward if self.settings.rewards == "mean" else outcome.reward
        candidates = _continuations(plans, outcome, rewards, scores.isneginf())
        chosen = candidates.value.sort(dim=1, descending=True, stable=True).indices
        chosen = chosen[:, :beam_size]
        kept = features.gather(1, chosen[..., None].expand(-1, -1, features.shape[-1]))
        last = LastStep(
            chosen // self.num_samples,
            action.gather(1, chosen),
            outcome.reward.gather(1, chosen),
            self.model.next_observation(kept),
        )
        return Plans(*(values.gather(1, chosen) for values in candidates)), last

    def _branch(self, parent: torch.Tensor) -> "PlanningPolicy":
        """Return a policy of R * K environments with the contexts of the plans `parent` [R, K].

        The present policy stays as it is.
        """
        plans_before = len(self.hidden) // len(parent)
        rows = torch.arange(len(parent), device=self.device)[:, None]
        envs = (rows * plans_before + parent).flatten()
        return self._with(self.context.branch(envs), self.action_mask[envs])

    def _split(self, branches: int) -> "PlanningPolicy":
        """Return a policy with `branches` environments in the place of each, adjacent.

        Their contexts share the past. The present policy stays as it is.
        """
        context = self.context.split(branches, self.settings.plan_steps - 1)
        return self._with(context, self.action_mask.repeat_interleave(branches, 0))

    def _with(self, context: Context, action_mask: torch.Tensor) -> "PlanningPolicy":
        copied = copy.copy(self)
        copied.context, copied.action_mask = context, action_mask
        return copied

    def _imagine(self, last: LastStep, time: torch.Tensor) -> torch.Tensor:
        """Add `last` [R, K] to the contexts of the R * K environments; return the next logits.

        `time` [N] is that of the next decisions.
        """
        goes_on = torch.zeros_like(last.action, dtype=torch.bool).flatten()
        observation = {name: values.flatten() for name, values in last.next_observation.items()}
        outcome = last.reward.flatten(), goes_on, goes_on, observation
        self.observe(last.action.flatten(), *outcome)
        # The position table ends at the time limit, which plans that are over have reached.
        time = time.clamp(max=self.model.spec.episode_length - 1)
        return self._decide(observation, time.repeat_interleave(len(goes_on) // len(time)))


def _continuations(
    plans: Plans, outcome: Outcome, rewards: torch.Tensor, lacking: torch.Tensor
) -> Plans:
    """Return the continuations [R, K * M] of `plans` [R, K] by M actions each.

    The other arguments are [R, K * M]. `rewards` are the predictions that rank plans. `lacking` are
    actions that the task does not have: such a continuation has the value -inf. A plan that is over
    has one continuation, which is itself.
    """
    repeats = lacking.shape[1] // plans.value.shape[1]
    before = Plans(*(values.repeat_interleave(repeats, 1) for values in plans))
    is_first = torch.arange(lacking.shape[1], device=lacking.device) % repeats == 0
    over, never = before.ended, lacking | (before.ended & ~is_first)
    rewards = before.rewards + rewards.masked_fill(over, 0).masked_fill(never, float("-inf"))
    ended = outcome.terminated | over
    return Plans(rewards + outcome.return_after.masked_fill(ended, 0), rewards, ended)
