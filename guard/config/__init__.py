"""Floor 5: reads settings and wires the parts: the only place that does."""
