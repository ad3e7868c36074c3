"""Boundary keywords: what regular expressions cannot say safely of paths, URLs, money or SQL."""
