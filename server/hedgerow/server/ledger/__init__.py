"""Privacy spending on the server: what it charges to populations, and what devices claim of their own ledgers."""
