"""Methods that buy means and covariances of classes, and what is drawn from them."""
