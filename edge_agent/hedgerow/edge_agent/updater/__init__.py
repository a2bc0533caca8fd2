"""Fetches, verifies and stages bundles. The agent starts it as a child process, so that tuf never loads in the agent."""
