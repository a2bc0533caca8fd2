"""The device gateway: the only listener that devices reach. TLS with client certificates, an allow-list, bounds."""

from hedgerow.server.gateway.listener import Gateway, GatewayConfig
from hedgerow.server.gateway.paths import Mount
from hedgerow.server.gateway.tls import gateway_context

__all__ = ["Gateway", "GatewayConfig", "Mount", "gateway_context"]
