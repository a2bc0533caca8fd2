"""The agent's link to its server: mTLS requests, what is wanted, heartbeats and events, through outages."""
