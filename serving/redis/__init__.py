"""How the API reads Redis: one connection to each server, which all concurrent reads share."""
