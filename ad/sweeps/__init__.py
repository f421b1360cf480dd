"""Many runs from one description: studies of settings and searches for source settings."""
