"""Strategies by name: our own and, for jobs without privacy, those of Flower's strategy package."""
