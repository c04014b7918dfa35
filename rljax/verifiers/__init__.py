"""Checkers of answers: plain Python, no JAX, safe to import in a worker process."""
