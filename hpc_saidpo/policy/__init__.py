"""A causal language model: where it is, loading, saving, attention, and the copy that a process keeps."""
