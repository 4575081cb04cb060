"""What makes model files: convert, quantize, cluster, synth."""
