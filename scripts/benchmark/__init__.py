"""Benchmark of speed: every stage against its peers and against the limit of the hardware."""
