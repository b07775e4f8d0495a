"""From images to answers: the one way to predict."""
