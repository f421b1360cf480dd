"""Further runs of the best methods of a world, where three do not tell them apart."""

from dataclasses import replace

from ad.evaluation.metrics import t_interval
from ad.sweeps.leaderboard.plan import Board, Cell
from ad.sweeps.leaderboard.scores import SCORE, Records, missing_cells, records_of_cells, values_of
from ad.sweeps.records import RunRecord


def with_further_runs(board: Board, records: dict[str, RunRecord]) -> Board:
    """Return `board` with the further runs of the cells that are level at the top of their world.

    These are the cell with the highest mean SCORE and those whose 95 % interval reaches that of
    the best one, unless all of these intervals are one point. The first runs alone decide, when a
    world has all of them: further ones do not change which cells have them.
    """
    cells = records_of_cells(board, records)
    unfinished = {cell.world for cell in missing_cells(board, cells)}
    level = {
        (world, method)
        for world in board.worlds
        if world not in unfinished
        for method in _level_at_the_top(board, world, cells)
    }

    def widened(cell: Cell) -> Cell:
        if (cell.world, cell.method) not in level:
            return cell
        return replace(cell, runs=[*cell.runs, *cell.further_runs])

    return replace(board, cells=[widened(cell) for cell in board.cells])


def _level_at_the_top(board: Board, world: str, cells: Records) -> list[str]:
    """Return the best method of a world and those level with it, if there are any."""
    scores = {m: values_of(cells.get((world, m), []), SCORE) for m in board.methods}
    intervals = {m: t_interval(own) for m, own in scores.items() if len(own) > 1}
    if not intervals:
        return []
    best = max(intervals.values(), key=lambda interval: interval["mean"])
    level = {m: own for m, own in intervals.items() if own["hi"] >= best["lo"]}
    is_open = len(level) > 1 and any(own["hi"] > own["lo"] for own in level.values())
    return [*level] if is_open else []
