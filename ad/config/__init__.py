"""The configuration of an experiment: settings, their limits, YAML, the command line, and help."""
