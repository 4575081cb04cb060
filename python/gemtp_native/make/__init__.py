"""Makes model files: convert, quantize, cluster, synth."""
