"""The store that replicas share: PostgreSQL, an inbox, and a sequencer that moves it into the log."""
