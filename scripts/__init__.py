"""The verbs of the command line, python -m scripts.<verb>, and the benchmark of speed."""
