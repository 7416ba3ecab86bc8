"""Keep documents: the store contract, its back ends, and the writer that commits in groups."""
