"""From the shop's orders to our interactions: what every later stage reads.

- :mod:`interactions`: the refresh, from the orders that have changed;
- :mod:`reconcile`: finds what no refresh can see, and repairs it;
- :mod:`backfill`: the first run and rebuilds, in chunks of users;
- :mod:`counting`: what the three have in common: what a set of orders counts for;
- :mod:`popularity`: the products' purchases, kept up beside;
- :mod:`watermark`: how far the orders are processed.
"""
