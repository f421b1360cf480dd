"""Relations of a decision to the tokens before it: sums of attention over them can be averaged.

The relation of a key token to decision t says what the token encodes:

    itself         the token is at the position of decision t
    return-to-go, state                          of decision t, in place of `itself`
    earlier return-to-go, state or action        of an earlier decision
    previous step  the token is at the position of decision t - 1
    same cell      it encodes the observation of decision t, at an earlier decision
    step after it  it encodes an earlier action at that observation, or its outcome
    rewarded       it encodes a reward above 0
    same episode   the token is at an earlier position of the episode
    episode start  the token is at the first position of an earlier episode or of this one

The second and third lines are of conditioned tokens, each of which tells one thing. The relations
below them are to tokens at earlier positions. A token may be in several relations: in a world whose
reward ends the episode, a fused token with a reward is at an episode's start.
"""

import torch

from ad.interpret.contexts import Contexts
from ad.models.rewards import NoReward
from ad.models.sequence_model import SequenceModel
from ad.models.tokenizer import Window

Masks = dict[str, torch.Tensor]  # bool [B, T, K] by relation
RETURN = "return-to-go"  # the relation of a token that tells what is asked for


def encodes_rewards(model: SequenceModel) -> bool:
    """Return whether the tokens of `model` encode rewards."""
    reward = model.tokenizer.reward
    return model.reads_rewards and reward is not None and not isinstance(reward, NoReward)


def relation_names(model: SequenceModel) -> list[str]:
    """Return the names of the relations that tokens of `model` can be in."""
    names = [*_own_names(model), "previous step", "same cell", "step after it"]
    rewarded = ["rewarded"] if encodes_rewards(model) else []
    return [*names, *rewarded, "same episode", "episode start"]


def _own_names(model: SequenceModel) -> list[str]:
    """Return the names of the relations by what a token tells."""
    if model.tokenizer.has_outcomes:
        return ["itself"]
    asked = [RETURN] if model.tokenizer.inputs else []
    return [*asked, "state", *(f"earlier {name}" for name in (*asked, "state", "action"))]


def relations(model: SequenceModel, contexts: Contexts) -> Masks:
    """Return which of K tokens are in each relation to each of T decisions.

    The tokens of all streams follow each other, K = streams × L. Tokens that a decision cannot
    attend to are in no relation.
    """
    entries = {role: x.flatten() for role, x in model.tokenizer.entries(contexts.length).items()}
    decision = torch.arange(1, contexts.length + 1)[:, None]
    at = entries["decision"]
    earlier = at < decision  # [T, K]
    labels = (contexts.valid, contexts.cell, contexts.time, contexts.episode, contexts.reward)
    valid, cell, time, episode, reward = map(torch.from_numpy, labels)

    def of_key(values: torch.Tensor, role: str) -> torch.Tensor:
        """Return [B, 1, K]: the values [B, T + 1] of the entries whose `role` the tokens encode."""
        return values[:, entries[role].clamp(min=0)][:, None]

    def of_query(values: torch.Tensor) -> torch.Tensor:
        return values[:, 1:, None]  # [B, T, 1]

    has_action, has_outcome = (
        (entries[role] >= 0) & (entries[role] < decision) & of_key(valid, role)
        for role in ("action", "outcome")
    )
    after = has_action & (of_key(cell, "action") == of_query(cell))
    after |= has_outcome & (of_key(cell, "outcome") == of_query(cell))
    seen = (entries["observation"] >= 0) & (of_key(cell, "observation") == of_query(cell))
    masks = {
        **_own_relations(entries, decision, len(contexts)),
        "previous step": (at == decision - 1).expand(len(contexts), -1, -1),
        "same cell": seen & earlier,
        "step after it": after & earlier,
        "rewarded": has_outcome & (of_key(reward, "outcome") > 0) & earlier,
        "same episode": (of_key(episode, "decision") == of_query(episode)) & earlier,
        "episode start": (of_key(time, "decision") == 0) & earlier,
    }
    reachable = _reachable(model, contexts.length)
    return {name: masks[name] & reachable for name in relation_names(model)}


def _own_relations(entries: Window, decision: torch.Tensor, count: int) -> Masks:
    """Return the tokens of the decisions [T, 1], and of earlier ones, by what they tell."""
    masks = {"itself": entries["decision"] == decision}
    roles = {RETURN: "inputs", "state": "observation", "action": "action"}
    for name, role in roles.items():
        if role in entries:
            masks[name] = entries[role] == decision
            masks[f"earlier {name}"] = (entries[role] >= 1) & (entries[role] < decision)
    return {name: mask.expand(count, -1, -1) for name, mask in masks.items()}


def decision_tokens(model: SequenceModel, num_decisions: int) -> torch.Tensor:
    """Return the index of each decision's token among all tokens of a window, int64 [T]."""
    return torch.nonzero(model.tokenizer.entries(num_decisions)["observation"].flatten() >= 1)[:, 0]


def at_tokens(pattern: torch.Tensor, streams: int, queries: torch.Tensor) -> torch.Tensor:
    """Return the rows [B, H, T, K] of `queries`, int64 [T], of a pattern [B * streams, H, L, K]."""
    rows = pattern.unflatten(0, (-1, streams)).transpose(1, 2).flatten(2, 3)  # [B, H, S L, K]
    return rows[:, :, queries]


def _reachable(model: SequenceModel, num_decisions: int) -> torch.Tensor:
    """Return which tokens the token of a decision attends to, bool [T, K]."""
    streams, length = model.tokenizer.entries(num_decisions)["decision"].shape
    place = torch.arange(length).repeat(streams)
    return place <= place[decision_tokens(model, num_decisions)][:, None]
