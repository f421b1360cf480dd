"""Exports of trained models to formats that other programs read."""
