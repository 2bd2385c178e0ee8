"""What a run computes: graphs, optimizers, initialisation, data order, arithmetic."""
