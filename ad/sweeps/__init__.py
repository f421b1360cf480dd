"""Verbs in turn and many runs: the pipeline, seeds, studies, searches and the table of results."""
