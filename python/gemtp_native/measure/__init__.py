"""Measures models: bench, tune, sweep, perplexity."""
