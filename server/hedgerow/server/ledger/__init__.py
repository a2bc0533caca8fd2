"""What devices claim of their privacy ledgers, kept so that no device can go back to an older one unseen."""
