"""A simulated messaging API behind nginx, with customers who use it well and badly. Knows nothing of errata."""
