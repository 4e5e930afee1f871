"""Pools of candidate samples: scored once, then selected by an algebra of selectors, fetched and resharded."""
