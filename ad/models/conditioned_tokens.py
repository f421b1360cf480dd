"""Tokens of what is asked for, the observation and the action (Chen et al. 2021, section 3)."""

import torch

from ad.models.positions import Start
from ad.models.tokenizer import CURRENT, TableCache, Terms, Tokenizer, Window, interleave


class ConditionedTokens(Tokenizer):
    """Two or three tokens a decision: the further inputs, the observation and the action.

    They share a position. Without further inputs there are two. The action is predicted from the
    token of the observation. Rewards and what an action led to have no token: the next decision
    shows the observation, and a return to go shows the reward by what is left of it.
    """

    has_outcomes = False

    def num_tokens(self, num_decisions: int) -> int:
        """Return the tokens of `num_decisions` without the last action."""
        return self._num_each * num_decisions - 1

    def entries(self, num_decisions: int) -> Window:
        """Return the entries that each token tells, int64 [1, L] by role; none tells an outcome.

        With further inputs there is the role `inputs`.
        """
        t = torch.arange(1, num_decisions + 1)
        columns = {"observation": (None, t, None), "action": (None, None, t), "decision": (t, t, t)}
        if self.inputs:
            columns["inputs"] = (t, None, None)
        told = {role: interleave(*c[-self._num_each :])[:, :-1] for role, c in columns.items()}
        return told | {"outcome": torch.full_like(told["decision"], -1)}

    @property
    def decision_terms(self) -> list[str]:
        """The names of the `terms` of the tokens of observations."""
        return [*self._states("state"), *filter(None, [self._position_term])]

    def at_decisions(self, hidden: torch.Tensor) -> torch.Tensor:
        """Return the hidden states of the observations."""
        return hidden[:, self._num_each - 2 :: self._num_each]

    def _columns(self, window: Window, start: Start, tables: TableCache) -> list[Terms]:
        parts = [
            self._embed_inputs(window),
            self._embed_observation(window, "observation", CURRENT, tables),
            self._embed_action(window, CURRENT),
        ]
        position = self._embed_position(window, start)
        return [part + position for part in parts[-self._num_each :]]

    def _arranged(self, columns: list[torch.Tensor]) -> torch.Tensor:
        return torch.stack(columns, dim=2).flatten(1, 2)[:, :-1]  # [B, L, C]

    @property
    def _num_each(self) -> int:
        """The number of tokens of a decision and its action."""
        return 3 if self.inputs else 2
