"""Loss mathematics: pure functions first, thin objects second. No model is imported here."""
