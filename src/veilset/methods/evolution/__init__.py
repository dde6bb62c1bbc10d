"""Methods that train nothing on private images: public candidates, which the private images vote for."""
