"""Jobs: what an engineer submits, checked, queued, run round by round, handed over when trained."""
