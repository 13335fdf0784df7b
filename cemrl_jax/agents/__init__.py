"""Algorithms: what training needs of one, and the implementations."""
