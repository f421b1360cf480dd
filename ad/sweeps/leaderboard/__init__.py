"""The leaderboard: every method in every world, under one protocol."""
