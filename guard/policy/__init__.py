"""Floor 1: the decision point. Pure: everything it knows arrives as a value."""
