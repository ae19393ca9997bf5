"""Checks of what the other stages made: blocking where going on would publish rubbish."""
