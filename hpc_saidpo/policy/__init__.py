"""A causal language model: its folder, loading, saving, attention, and the copy that a process keeps in memory."""
