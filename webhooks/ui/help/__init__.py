"""Help inside the product: the event catalogue and the guide for receivers."""
