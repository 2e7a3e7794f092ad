"""Servers in many processes: a supervisor that forks workers and replaces them."""
