"""Losses and gradients that are not finite: skipped batches, then one roll-back, then an error.

A bad batch is one whose loss or gradient is not finite. It changes neither weights nor optimizer.
"""

from dataclasses import dataclass, field

from ad.errors import NumericError
from ad.runtime.console import warn

MAX_BAD_BATCHES = 5  # consecutive ones that are skipped before training rolls back


@dataclass
class NonFiniteGuard:
    """Counts bad batches; more than `limit` consecutive ones make a roll-back necessary."""

    limit: int
    skipped: int = 0  # bad batches in the whole training
    consecutive: list[int] = field(default_factory=list)  # bad steps up to now, without a gap
    roll_backs: list[str] = field(default_factory=list)  # the reason of each, at most one
    warned: bool = False

    def count(self, step: int, bad: bool) -> None:
        """Record whether the batch of `step` was bad; warn of the first one."""
        if not bad:  # several steps are counted at a time: a gap after too many changes nothing
            self.consecutive = self.consecutive if self.too_many else []
            return
        self.skipped += 1
        self.consecutive = [*self.consecutive, step]
        if not self.warned:
            warn(
                f"the loss or its gradient is not finite at step {step}: this batch is skipped "
                "(metrics.jsonl counts them as train/skipped_batches)"
            )
            self.warned = True

    @property
    def too_many(self) -> bool:
        """Whether a roll-back is necessary."""
        return len(self.consecutive) > self.limit

    def roll_back(self, reason: str) -> None:
        """Record a roll-back to a checkpoint. Raises NumericError if it is the second one."""
        self.roll_backs = [*self.roll_backs, reason]
        self.consecutive = []
        if len(self.roll_backs) > 1:
            reasons = ", and after a roll-back ".join(self.roll_backs)
            advice = "a smaller training.learning_rate may help"
            raise NumericError(f"training left the finite numbers: {reasons}; {advice}")

    def reason(self) -> str:
        """Return a sentence that names the consecutive bad steps."""
        first, last = self.consecutive[0], self.consecutive[-1]
        return f"the loss or its gradient is not finite at steps {first} to {last}"

    def state_dict(self) -> dict:
        """Return the counts for a checkpoint."""
        return {name: getattr(self, name) for name in ("skipped", "consecutive", "roll_backs")}

    def load_state_dict(self, state: dict) -> None:
        """Restore the counts that `state_dict` returned."""
        for name, value in state.items():
            setattr(self, name, value)

    def metrics(self) -> dict[str, float]:
        """Return the counts above 0 under their tags in the log."""
        counts = {"skipped_batches": self.skipped, "roll_backs": len(self.roll_backs)}
        return {f"train/{name}": count for name, count in counts.items() if count}
