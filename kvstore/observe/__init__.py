"""Looking at a store: what it says about itself, what is measured, and its environment."""
