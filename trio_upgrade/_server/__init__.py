# From listeners to answers.
