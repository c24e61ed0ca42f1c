"""Storage for the engine: ordered byte maps behind ``kvstore``'s ``Backend`` interface, found by name."""
