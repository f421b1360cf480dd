"""Multi-armed bandits: worlds of one state, whose tasks differ in the means of their arms."""
