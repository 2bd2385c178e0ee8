"""Where a bundle's bytes are kept."""
