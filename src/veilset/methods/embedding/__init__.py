"""Methods that buy the mean of a feature map over each class and train a generator to have it."""
