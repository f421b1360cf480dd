"""A study of what single settings change: its plan, verdicts, figures and page."""
