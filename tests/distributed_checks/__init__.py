"""Checks that every rank of a spawned world runs; see `tests/distributed_world.py`."""
