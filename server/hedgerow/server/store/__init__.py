"""The server's durable record: one database, one content-addressed blob store. Each part declares its own tables."""
