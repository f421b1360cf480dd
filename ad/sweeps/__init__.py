"""Many runs: the plan of a sweep, the loop that makes its runs, their records, and its page."""
