"""Other people's networks, trained as their own documentation trains them."""
