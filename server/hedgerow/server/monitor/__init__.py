"""What the server knows, as values to show: views, alerts by rule, metrics for Prometheus."""
