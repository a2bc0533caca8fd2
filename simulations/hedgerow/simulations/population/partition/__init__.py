"""Dividing a pool of examples over devices: one module a kind, each a pure function of labels, groups and a generator."""
