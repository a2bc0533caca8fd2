"""Where examples come from: one module a source, each with ``Options`` and ``read(request) -> Pool``."""
