"""The default engine: one persistent process a core, one thread each, models and sums in shared memory."""
