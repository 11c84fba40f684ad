"""How good is a record, and which ones stay? Scorers and selectors."""
