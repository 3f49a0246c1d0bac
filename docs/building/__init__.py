"""Build what no hand writes: the reference from the product, formulas as MathML, notebooks, and checked links."""
