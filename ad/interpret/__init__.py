"""Looking inside a trained model: hooks, contexts, and analyses that return labeled arrays.

An analysis is a subclass of `ad.interpret.analysis.Analysis`: one file in `analyses/` and one line
of `ad.registry`. It reads the transformer through the points of `hooks.py`.
"""
