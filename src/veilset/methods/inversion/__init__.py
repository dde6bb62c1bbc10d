"""Private images as codes of a public model, and a small private model of the codes."""
