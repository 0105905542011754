"""The fleet's workers on other machines. A front without `cluster_listen` does not import this."""
