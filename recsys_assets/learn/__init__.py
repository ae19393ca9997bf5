"""Learning: what is computed offline from interactions and baskets, and kept as artifacts."""
