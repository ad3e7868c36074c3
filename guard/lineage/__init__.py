"""Floor 3: the record. Entries, the tree over them, its checkpoints, and the stores."""
