"""One message to 5,000 members of a room: ``nox -s room``."""
