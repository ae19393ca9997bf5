"""From interactions and baskets to models: versioned pickles in the folder of artifacts."""
