"""The importers by name: our own, and those that other packages add by the entry-point group `isrf.importers`."""

from collections.abc import Mapping
from importlib.metadata import entry_points

from isrf.contract.errors import ConfigError
from isrf.contract.shown import shown
from offline.importers.ga4 import GoogleAnalytics4
from offline.importers.google_products import GoogleProducts
from offline.importers.importer import Importer
from offline.importers.opensearch_ubi import OpenSearchUbi
from offline.importers.segment import Segment
from offline.importers.shops.magento import Magento
from offline.importers.shops.shopify import Shopify
from offline.importers.shops.woocommerce import WooCommerce

GROUP = "isrf.importers"
OWN: Mapping[str, type[Importer]] = {
    one.name: one for one in (GoogleProducts, Shopify, WooCommerce, Magento, GoogleAnalytics4, Segment, OpenSearchUbi)
}


def source_names() -> list[str]:
    """The names of all importers, sorted."""
    return sorted({*OWN, *(point.name for point in entry_points(group=GROUP))})


def find_importer(name: str) -> Importer:
    """The importer of a source; one of our own cannot be replaced.

    Raises:
        ConfigError: `import.unknown_source`, `import.broken_source`.
    """
    if name in OWN:
        return OWN[name]()
    points = entry_points(group=GROUP, name=name)
    if not points:
        raise ConfigError(
            "import.unknown_source",
            f"{shown(name)} is no source.",
            fix=f"Use one of {', '.join(source_names())}. Other files are read as they are: see `offline inspect`.",
        )
    point = next(iter(points))
    try:
        importer: Importer = point.load()()
    except (ImportError, AttributeError, TypeError) as error:
        raise ConfigError(
            "import.broken_source",
            f"the importer {shown(name)} ({point.value}) cannot be loaded: {error}.",
            fix="Correct the package that adds it, or uninstall the package.",
        ) from error
    return importer
