"""Servers that are replaced under load: ``nox -s restart``."""
