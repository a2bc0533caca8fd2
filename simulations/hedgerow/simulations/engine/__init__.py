"""What simulation engines have in common: what they are asked, and what they answer."""
