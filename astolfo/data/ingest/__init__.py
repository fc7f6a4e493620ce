"""Getting data in: sources of samples (`astolfo.data.ingest.<kind>`), and the one road that they all take (`run`)."""
