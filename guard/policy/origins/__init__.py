"""Where the values of a call came from."""
