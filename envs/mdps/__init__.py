"""Families of tabular Markov decision processes, whose tasks are drawn at random and are exact."""
