"""Hostile peers against one server: ``nox -s abuse``."""
