"""Measures Plait beside its peers, for `scripts/bench`; docs/benchmarks.md tells the method."""
