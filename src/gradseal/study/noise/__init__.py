"""The noise of native replay: variants of numerics, processes that replay under them, what was measured."""
