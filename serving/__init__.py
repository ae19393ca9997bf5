"""The HTTP API: reads the published lists from Redis, and nothing else.

Imports neither ``recsys_assets`` nor any library of the graph, so that a container with Litestar,
msgspec and a Redis client can run it.
"""
