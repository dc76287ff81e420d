"""Which training patches a step sees, and making them."""
