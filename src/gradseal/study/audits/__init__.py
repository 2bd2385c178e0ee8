"""What a sample of segments detects: the prover's best response, plans, and simulated provers."""
