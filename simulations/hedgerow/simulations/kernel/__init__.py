"""Local training made fast: a recipe's module as an explicit list of steps, one device at a time or many stacked."""
