"""Privacy accounting as values: events, ε by two accountants, noise calibration, reports, the device ledger's format."""
