"""Worlds that are rooms of cells: dark rooms, and the exact references of a search for a goal."""
