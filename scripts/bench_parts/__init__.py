"""What `scripts/bench.py` and `scripts/memory.py` are made of."""
