"""Where an artifact comes from: code digests, and later attestations."""
