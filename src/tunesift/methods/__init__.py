"""The methods, one page each.

paper                        page          recipe
Superfiltering 2402.00530    select.py     superfiltering.yaml
Superfiltering.D, the same   select.py     superfiltering-d.yaml
any scorer, any selector     select.py     select.yaml, combined.yaml, perplexity.yaml
Cherry LLM 2308.12032        cherry.py     cherry.yaml
no paper                     score.py      score.yaml
"""
