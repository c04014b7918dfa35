"""Parity with transformers: the models compared, their weights by name, and what torch computed with them."""
