"""Commands of the server's operator: ``hedgerow server``, ``hedgerow job``, ``hedgerow model``."""
