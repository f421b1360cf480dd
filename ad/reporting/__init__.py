"""What a person reads of a run: report, tables, plots, videos and the check of its files."""
