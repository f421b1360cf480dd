"""How the learning of source agents is recorded, resumed and published as histories."""
