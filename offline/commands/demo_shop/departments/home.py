"""What the demo shop sells under Home & Garden."""

from offline.commands.demo_shop.vocabulary import Department, Leaf, Trait

HOME = Department(
    "Home & Garden",
    (("Willow Lane", "Plain & Simple"), ("Greenacre", "Hearthside"), ("Maison Lind", "Old Orchard")),
    (
        Leaf(
            "Planters & Pots",
            "planter",
            (9, 119),
            ("{} Herb Pot Trio", "{} Hanging Planter", "{} Window Box", "{} Floor Planter", "{} Raised Bed"),
            (
                Trait("Terracotta", "Breathing clay that roots love."),
                Trait("Self-Watering", "A hidden reservoir carries plants through a week away."),
                Trait("Glazed", "A reactive glaze, so no two are alike."),
                Trait("Rattan", "Hand-woven over a waterproof liner."),
                Trait("Zinc", "Will weather to a soft grey."),
            ),
            ("Drains through a saucer of its own.", "Frost-proof down to −15 °C."),
            misfits=(
                ("Terracotta", "Raised"),
                ("Glazed", "Raised"),
            ),
        ),
        Leaf(
            "Seeds & Bulbs",
            "seed",
            (4, 39),
            (
                "{} Salad Mix Seeds",
                "{} Tomato Seeds, Four Kinds",
                "{} Tulip Bulbs, Pack of 25",
                "{} Kitchen Herb Kit",
                "{} Wildflower Meadow, 50 m²",
            ),
            (
                Trait("Heirloom", "Old varieties, kept for their taste."),
                Trait("Organic", "Grown and certified without sprays."),
                Trait("Bee-Friendly", "Chosen with beekeepers for a table laid from April to October."),
                Trait("Balcony", "Stays compact and does well in boxes."),
                Trait("Early", "Ready three weeks before everybody else's."),
            ),
            ("A calendar for sowing is printed inside.", "At least nine in ten germinate."),
            misfits=(("Balcony", "Meadow"),),
        ),
        Leaf(
            "Garden Tools",
            "garden-tool",
            (9, 149),
            ("{} Hand Trowel", "{} Secateurs", "{} Watering Can", "{} Digging Spade", "{} Garden Tool Set"),
            (
                Trait("Stainless", "Polished steel from which wet soil slides off."),
                Trait("Ash-Handled", "A handle of local ash, oiled by hand."),
                Trait("Lightweight", "Easy on wrists through a long Saturday."),
                Trait("Forged", "Forged, hardened and ground on both sides."),
                Trait("Telescopic", "Reaches where you would otherwise need a ladder."),
            ),
            ("Every spare part can be ordered.", "Hangs from a leather loop."),
            misfits=(
                ("Ash-Handled", "Can"),
                ("Ash-Handled", "Secateurs"),
                ("Telescopic", "Trowel"),
                ("Telescopic", "Can"),
                ("Forged", "Can"),
            ),
        ),
        Leaf(
            "Bedding",
            "bedding",
            (19, 259),
            ("{} Pillowcase Pair", "{} Fitted Sheet", "{} Throw", "{} Duvet Cover Set", "{} Duvet"),
            (
                Trait("Linen", "Stone-washed linen that softens with each night."),
                Trait("Percale", "Crisp and cool, as in a good hotel."),
                Trait("Bamboo", "Silky, and welcome on warm nights."),
                Trait("Flannel", "Brushed on both sides for cold bedrooms."),
                Trait("Wool", "Warm in winter, dry in summer."),
            ),
            ("Woven without harmful dyes.", "Buttons of mother-of-pearl."),
            misfits=(("Percale", "Throw"),),
        ),
        Leaf(
            "Candles & Fragrance",
            "candle",
            (9, 69),
            ("{} Tealights, Set of 24", "{} Scented Candle", "{} Room Spray", "{} Reed Diffuser", "{} Candle Gift Box"),
            (
                Trait("Cedar and Sage", "Dry cedar, sage and a trace of smoke."),
                Trait("Lavender", "Lavender from one hillside, cut in July."),
                Trait("Fig Leaf", "Green fig, warm stone, late summer."),
                Trait("Beeswax", "Pure beeswax that glows golden and smells of honey."),
                Trait("Sea Salt", "Salt air and driftwood."),
            ),
            ("Scented with plant oils alone.", "Poured in small batches."),
            misfits=(
                ("Beeswax", "Spray"),
                ("Beeswax", "Diffuser"),
            ),
        ),
        Leaf(
            "Desk Lamps",
            "desk-lamp",
            (22, 189),
            ("{} Clip Lamp", "{} Reading Lamp", "{} Desk Lamp", "{} Monitor Light", "{} Architect Lamp"),
            (
                Trait("Dimmable", "From a glow to full daylight with one turn."),
                Trait("Brass", "Solid brass that darkens with the years."),
                Trait("Warm White", "A warm light without glare."),
                Trait("Swing-Arm", "Stays wherever you push it."),
                Trait("Cordless", "Twenty hours of light, wherever you sit."),
            ),
            ("Gives true colours (CRI 95).", "Bulb included, and replaceable."),
        ),
    ),
)
