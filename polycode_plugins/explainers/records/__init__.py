"""Records: what an explainer is shown of a unit, and what its explanation is scored on."""
