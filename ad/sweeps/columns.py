"""The scores of records that tables can show: their headings and number formats."""

from ad.reporting.tables import COLUMNS, SEARCH_COLUMNS

SCORE_COLUMNS = {  # score -> heading and number format
    **{name: column for name, column in COLUMNS.items() if name != "tasks_solved"},
    **SEARCH_COLUMNS,
    "success_fifth_1": ("success, first fifth of episodes", ".3f"),
    "success_fifth_5": ("success, last fifth of episodes", ".3f"),
    "train_nauc": ("NAUC, train tasks", ".3f"),
    "train_success_last10": ("success, last 10, train tasks", ".3f"),
    "source_return": ("return of the source, last 10", ".2f"),
    "random_return": ("return of random actions", ".2f"),
    "held_out_accuracy": ("accuracy, held-out actors", ".3f"),
    "train_s": ("training, s", ".0f"),
}
