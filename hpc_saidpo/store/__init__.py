"""The store: the only package that names a path in a run folder or opens one for writing."""
