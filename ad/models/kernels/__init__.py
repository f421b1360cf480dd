"""The compiled CPU backend of the transformer, behind one class."""
