"""Reading: what an answer says, or the reason why it says nothing."""
