"""Collection: source agents learn, and what they do is recorded as histories."""
