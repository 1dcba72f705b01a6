"""The demo shop's hidden structure, as data: the groups of shoppers and the accessory of each category."""

from typing import NamedTuple


class Group(NamedTuple):
    """A hidden group: leaf categories across departments, and the price tier most members prefer (0 to 2)."""

    name: str
    leaves: tuple[str, ...]
    tier: int


GROUPS = (
    Group("weekend campers", ("Tents", "Camp Kitchen", "Action Cameras", "Coffee Beans", "Power Banks & Chargers"), 1),
    Group(
        "trail runners",
        ("Running Shoes", "Running Socks & Belts", "Headlamps & Lanterns", "Backpacks", "Headphones"),
        1,
    ),
    Group(
        "home-office baristas", ("Coffee Makers", "Keyboards & Mice", "Desk Lamps", "Notebooks & Pens", "Headphones"), 2
    ),
    Group("slow evenings", ("Knitting & Yarn", "Candles & Fragrance", "Coffee Beans", "Bedding", "Jigsaw Puzzles"), 1),
    Group(
        "balcony gardeners", ("Planters & Pots", "Seeds & Bulbs", "Food Storage", "Painting & Drawing", "Smart Home"), 0
    ),
    Group("family game nights", ("Board Games", "Jigsaw Puzzles", "Bakeware", "Building Kits", "Swimming"), 0),
    Group("garden-to-table cooks", ("Cookware", "Kitchen Knives", "Bakeware", "Seeds & Bulbs", "Garden Tools"), 2),
    Group("bikepackers", ("Cycling", "Sleeping Bags", "Power Banks & Chargers", "Camp Kitchen", "Memory & Storage"), 1),
    Group("mindful movers", ("Yoga & Pilates", "Candles & Fragrance", "Planters & Pots", "Bedding", "Food Storage"), 2),
    Group(
        "travelling sketchers",
        ("Painting & Drawing", "Notebooks & Pens", "Backpacks", "Hiking Boots", "Memory & Storage"),
        1,
    ),
    Group("garage athletes", ("Strength Training", "Swimming", "Food Storage", "Headphones", "Running Shoes"), 0),
    Group("gadget builders", ("Building Kits", "Smart Home", "Keyboards & Mice", "Desk Lamps", "Garden Tools"), 0),
)

ACCESSORIES = {
    "Tents": "Sleeping Bags",
    "Backpacks": "Headlamps & Lanterns",
    "Hiking Boots": "Running Socks & Belts",
    "Coffee Makers": "Coffee Beans",
    "Cookware": "Kitchen Knives",
    "Bakeware": "Food Storage",
    "Action Cameras": "Memory & Storage",
    "Keyboards & Mice": "Desk Lamps",
    "Running Shoes": "Running Socks & Belts",
    "Cycling": "Power Banks & Chargers",
    "Yoga & Pilates": "Candles & Fragrance",
    "Planters & Pots": "Seeds & Bulbs",
    "Painting & Drawing": "Notebooks & Pens",
    "Strength Training": "Headphones",
}
"""After a purchase in the first category, a purchase in the second often follows."""
