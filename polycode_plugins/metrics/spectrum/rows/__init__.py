"""How rows depend on one another, and what that does to a sample's spectrum."""
