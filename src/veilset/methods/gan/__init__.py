"""Methods that train a critic on private records and a generator against it."""
