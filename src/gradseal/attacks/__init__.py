"""What is done to bundles by those who would deceive; judged by the verifier, never by itself."""
