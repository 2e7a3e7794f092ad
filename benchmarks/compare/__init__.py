"""The comparison with Node and other peers: ``nox -s bench``."""
