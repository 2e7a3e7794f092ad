"""Mutated requests to several servers: ``nox -s fuzz``."""
