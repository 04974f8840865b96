"""The paper's experiments, each one entry of ``table.EXPERIMENTS``: what is changed, computed and compared."""
