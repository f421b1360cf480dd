"""How fast, against what a user would use instead and against the machine's own limit."""
