"""Episodes of many environments in lockstep, with a policy and its context."""
