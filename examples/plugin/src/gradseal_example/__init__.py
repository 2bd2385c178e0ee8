"""An attack and a policy for Gradseal, found by their entry points."""
