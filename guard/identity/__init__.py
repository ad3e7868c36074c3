"""Floor 1: credentials become a Principal. Keys, records and time are arguments."""
