"""Is one model, or one way of choosing data, better than another? What comparisons come to."""
