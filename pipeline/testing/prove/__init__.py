"""The proof that a publication survives anything, on the real servers.

A publisher is killed at every one of its requests, and every request is answered with every fault,
while a real Triton polls the real store and clients compare every answer. ``python -m
pipeline.testing.prove`` prints a table in which the columns of failures have to be zero.
"""
