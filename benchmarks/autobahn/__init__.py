"""Autobahn's testsuite against our WebSockets: ``nox -s autobahn``."""
