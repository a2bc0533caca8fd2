"""Lets a stock Flower SuperNode on this device join: loopback in, the device's mTLS out, fleet routes only.

Flower signs requests only where it speaks TLS, so the loopback side has TLS too, with a certificate made at the start.
The SuperNode must hold the device's key: another user of this machine can reach the proxy, and is refused by the server.
"""

from hedgerow.edge_agent.flower_proxy.proxy import FlowerProxy

__all__ = ["FlowerProxy"]
