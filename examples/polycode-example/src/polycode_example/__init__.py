"""One plugin of each kind for polycode-plugins."""
