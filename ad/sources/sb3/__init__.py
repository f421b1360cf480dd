"""Algorithms of Stable-Baselines3 as sources, and their policies as players (extra sb3)."""
