"""The pieces of the probe: asking a model, its structure, its answers, its scaling."""
