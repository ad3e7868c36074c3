"""Floor 2: the signed permission for one call; issue it (grant) and check it (verify)."""
