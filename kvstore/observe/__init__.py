"""Looking at a store: what it says about itself, what is measured, and the ground it stands on."""
