"""Eigenvalues of a layer's covariance, and the law they follow."""
