"""What measures models: bench, tune, sweep, perplexity."""
