"""Numbered steps of the database's tables."""
