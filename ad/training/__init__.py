"""Training of the sequence model: optimizer, trainer, checkpoints and their provenance."""
