"""Launchers: start verbs as processes, on this machine or in a cluster, and never import them."""
