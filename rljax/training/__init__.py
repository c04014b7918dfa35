"""A run: from a config file and a command line to finished stages on disk."""
