"""Studies: what is trained and measured, the claims about it, and how they are decided."""
