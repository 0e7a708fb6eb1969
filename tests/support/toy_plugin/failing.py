"""A module that fails while it is imported."""

raise ValueError("the toy is out of order")
