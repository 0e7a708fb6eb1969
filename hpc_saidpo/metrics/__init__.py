"""Figures of an iteration and the failure signatures that they show. Pure functions."""
