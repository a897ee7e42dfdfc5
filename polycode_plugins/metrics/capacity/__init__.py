"""How much a layer's code can carry, and how features share its dimensions."""
