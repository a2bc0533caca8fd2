"""What both sides of the wire know: values, limits, packing, scoring, identity and privacy accounting."""
