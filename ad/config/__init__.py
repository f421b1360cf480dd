"""What an experiment says: its settings, their limits, and how YAML and options are read."""
