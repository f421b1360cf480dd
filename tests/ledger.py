"""Counts of the faults that tests try: how many of each kind, and how many were survived.

`tests/conftest.py` passes the counts to the tests as a fixture and prints them at the end.
"""

from collections import defaultdict
from dataclasses import dataclass, field


@dataclass
class Entry:
    """The faults of one kind."""

    tried: int = 0
    survived: int = 0
    lost: list[str] = field(default_factory=list)  # the damage of each of the others


class Ledger:
    """Count faults by kind. A fault is survived if nothing is lost and no wrong data accepted."""

    def __init__(self):
        self.entries: dict[str, Entry] = defaultdict(Entry)

    def count(self, kind: str, lost: object = None, tried: int = 1) -> None:
        """Count `tried` faults of a kind, survived unless `lost` describes a damage."""
        entry = self.entries[kind]
        entry.tried += tried
        entry.survived += 0 if lost else tried
        entry.lost += [str(lost)] if lost else []

    def lost(self, kind: str) -> list[str]:
        """Return the damage of the faults of a kind so far."""
        return self.entries[kind].lost

    def lines(self) -> list[str]:
        """Return the counts as text: a line for each kind, the sum, and the damage."""
        tried = sum(entry.tried for entry in self.entries.values())
        survived = sum(entry.survived for entry in self.entries.values())
        lost = [text for entry in self.entries.values() for text in entry.lost]
        rows = [(kind, entry.tried, entry.survived) for kind, entry in self.entries.items()]
        width = max(len(kind) for kind in self.entries)
        lines = [f"{kind:{width}}  {n:7,} tried  {m:7,} survived" for kind, n, m in rows]
        total = f"{'all':{width}}  {tried:7,} tried  {survived:7,} survived"
        return [*lines, total, f"lost: {'; '.join(lost) or 'nothing'}"]
