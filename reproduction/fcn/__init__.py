"""The paper: nets, data sets, scores, published numbers and published files."""
