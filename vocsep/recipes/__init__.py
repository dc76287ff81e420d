"""From a recipe to a trained model that can be shipped: data sets, training, scores and a model card."""
