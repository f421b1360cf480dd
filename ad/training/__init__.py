"""Training of the sequence model: trainer, loop, callbacks, optimizer, checkpoints, provenance."""
