"""Figures, reports, videos and tables of finished runs; reads files, never trains."""
