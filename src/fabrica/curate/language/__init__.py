"""Texts that are made: captions, conversations, questions and preferences, each checked against the facts."""
