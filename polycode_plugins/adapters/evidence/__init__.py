"""What is proven of a model before a row is counted: axes, masks, documents."""
