"""A search for settings of the source algorithm, with its report."""
