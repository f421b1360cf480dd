"""A count of things in parts of about the same size."""

from itertools import pairwise


def evenly(count: int, number: int) -> list[tuple[int, int]]:
    """(start, stop) of so many parts of `count` things."""
    return list(pairwise(round(i * count / number) for i in range(number + 1)))


def at_most(count: int, most: int) -> list[tuple[int, int]]:
    """(start, stop) of as few parts as hold at most `most` things each."""
    return evenly(count, -(-count // most))
