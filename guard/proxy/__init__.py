"""Floor 4: the enforcement point. The floor with sockets and a clock."""
