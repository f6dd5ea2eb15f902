"""The models and exports that the audits of docs/examples are of."""
