"""Runs a plan of steps and surveys over a corpus: here or on a cluster, in units, resumed after a kill."""
