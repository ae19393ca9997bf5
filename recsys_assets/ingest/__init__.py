"""From the shop's orders to our interactions: what every later stage reads."""
