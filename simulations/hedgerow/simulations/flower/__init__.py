"""The engine ``flower``: the same scenario through Flower's simulation runtime on Ray."""
