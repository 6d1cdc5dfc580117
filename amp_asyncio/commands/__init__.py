"""Commands: what one side can ask of the other, and the types of what is said."""
