"""GGUF files: reading and writing them, block types, parts."""
