"""Raw texts and pictures to feature vectors, by encoders."""
