"""A stock Flower app, for tests."""
