"""The aggregation server: device gateway, round loop, registry, delivery, monitor, fleet API and dashboard."""
