"""Findings: tables of analyses of trained models, over several training seeds."""
