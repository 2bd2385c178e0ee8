"""The witness: a service that cosigns what logs say of themselves, as long as they only grow."""
