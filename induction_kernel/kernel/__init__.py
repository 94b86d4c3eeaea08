"""Is the model's in-context learning kernel regression over the demonstrations? Han et al. 2025, on any model."""
