"""Importers of shop systems that export products and orders as tables: items are variants, and orders are purchases.

It may import what `offline.importers` may, and its modules.
"""
