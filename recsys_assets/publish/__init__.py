"""From models and interactions to the lists that the API serves from Redis."""
