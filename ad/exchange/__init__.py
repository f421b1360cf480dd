"""Trained models in formats that others read."""
