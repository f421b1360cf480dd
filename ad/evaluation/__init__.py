"""Evaluation of a frozen model: rollouts on the split, scores, references and their files."""
