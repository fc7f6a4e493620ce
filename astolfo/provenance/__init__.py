"""Where an artifact comes from: attestations, records of jobs, recorded digests, and what checks and compares them."""
