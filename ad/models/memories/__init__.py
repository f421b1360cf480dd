"""Memories: what a sequence model makes of its tokens and keeps of those that it has read."""
