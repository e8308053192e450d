"""Objects of Objaverse and Objaverse-XL: their lists, their cache, and workers that download them."""
