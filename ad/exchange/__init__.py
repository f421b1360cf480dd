"""Learning histories and trained models in formats that other programs read, and back."""
