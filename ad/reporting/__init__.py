"""Report, tables, plots and videos of a run, and the verification of its files."""
