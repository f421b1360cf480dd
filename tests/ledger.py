"""The account of a fault run: how many faults of each kind were tried, survived, and what was lost.

`tests/conftest.py` hands it to the tests as a fixture and prints it when all are through.
"""

from collections import defaultdict
from dataclasses import dataclass, field


@dataclass
class Entry:
    """The faults of one kind."""

    tried: int = 0
    survived: int = 0
    lost: list[str] = field(default_factory=list)  # what each of the others has cost


class Ledger:
    """Counts faults by kind. A fault is survived if nothing is lost and nothing wrong believed."""

    def __init__(self):
        self.entries: dict[str, Entry] = defaultdict(Entry)

    def count(self, kind: str, lost: object = None, tried: int = 1) -> None:
        """Note `tried` faults of a kind, and what they have `lost`, if that is anything."""
        entry = self.entries[kind]
        entry.tried += tried
        entry.survived += 0 if lost else tried
        entry.lost += [str(lost)] if lost else []

    def lost(self, kind: str) -> list[str]:
        """What the faults of a kind have cost so far."""
        return self.entries[kind].lost

    def lines(self) -> list[str]:
        """The account, a line a kind, and the sum."""
        tried = sum(entry.tried for entry in self.entries.values())
        survived = sum(entry.survived for entry in self.entries.values())
        lost = [text for entry in self.entries.values() for text in entry.lost]
        rows = [(kind, entry.tried, entry.survived) for kind, entry in self.entries.items()]
        width = max(len(kind) for kind in self.entries)
        lines = [f"{kind:{width}}  {n:7,} tried  {m:7,} survived" for kind, n, m in rows]
        total = f"{'all':{width}}  {tried:7,} tried  {survived:7,} survived"
        return [*lines, total, f"lost: {'; '.join(lost) or 'nothing'}"]
