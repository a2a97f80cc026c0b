"""tikmix_hf: a language model chooses its own data mixture while it trains."""
