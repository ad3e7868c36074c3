"""The parts of `scripts/agentdojo.py`."""
