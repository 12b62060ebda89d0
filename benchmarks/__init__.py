"""Speed, as ratios to a peer and to the physical limit, measured side by side: ``python -m benchmarks``."""
