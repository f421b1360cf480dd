"""Training of the sequence model: steps, schedule, optimizer, checkpoints and provenance."""
