"""The recipes that come with Hedgerow, found by entry point."""
