"""Numbers gone wrong in training: bad batches are skipped, then one roll-back, then the end.

A batch is bad when its loss or gradient is not finite. It changes neither weights nor optimiser.
"""

from dataclasses import dataclass, field

from ad.errors import NumericError
from ad.runtime.console import notice


@dataclass
class Setbacks:
    """Counts bad batches. More than `limit` in a row are too many."""

    limit: int
    skipped: int = 0  # batches, in the whole training
    in_a_row: list[int] = field(default_factory=list)  # the bad steps up to now, without a gap
    rolled_back: list[str] = field(default_factory=list)  # why, at most once
    said: bool = False

    def count(self, step: int, bad: bool) -> None:
        """The batch of `step` was bad, or was not."""
        if not bad:
            self.in_a_row = []
            return
        self.skipped += 1
        self.in_a_row = [*self.in_a_row, step]
        if not self.said:
            notice(
                f"the loss or its gradient is not finite at step {step}: this batch is skipped "
                "(metrics.jsonl counts them as train/skipped_batches)"
            )
            self.said = True

    @property
    def too_many(self) -> bool:
        """Whether going on makes no sense."""
        return len(self.in_a_row) > self.limit

    def roll_back(self, why: str) -> None:
        """Note that training goes back to a checkpoint. The second time: NumericError."""
        self.rolled_back = [*self.rolled_back, why]
        self.in_a_row = []
        if len(self.rolled_back) > 1:
            story = ", and after a roll-back ".join(self.rolled_back)
            advice = "a smaller training.learning_rate may help"
            raise NumericError(f"training left the finite numbers: {story}; {advice}")

    def reason(self) -> str:
        """Which steps were bad, in words."""
        first, last = self.in_a_row[0], self.in_a_row[-1]
        return f"the loss or its gradient is not finite at steps {first} to {last}"

    def state(self) -> dict:
        """What a checkpoint keeps."""
        return {name: getattr(self, name) for name in ("skipped", "in_a_row", "rolled_back")}

    def restore(self, state: dict) -> None:
        """Go on from what `state` gave."""
        for name, value in state.items():
            setattr(self, name, value)

    def logged(self) -> dict[str, float]:
        """What the log says of it: nothing as long as nothing happened."""
        counts = {"skipped_batches": self.skipped, "roll_backs": len(self.rolled_back)}
        return {f"train/{name}": count for name, count in counts.items() if count}
