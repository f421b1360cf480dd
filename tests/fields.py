"""The fields of a transition in a dark room, which most tests collect."""

from ad.data.schema import transition_fields
from envs import make_base

FIELDS = transition_fields(make_base("DarkRoom-v0"))
