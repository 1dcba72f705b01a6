"""What the demo shop sells under Kitchen & Coffee."""

from offline.commands.demo_shop.vocabulary import Department, Leaf, Trait

KITCHEN = Department(
    "Kitchen & Coffee",
    (("Homestead", "Tin & Thyme"), ("Copperleaf", "Morning Post"), ("Brennhaus", "Atelier Rousse")),
    (
        Leaf(
            "Coffee Makers",
            "coffee-maker",
            (29, 449),
            ("{} Pour-Over Set", "{} French Press", "{} Moka Pot", "{} Burr Grinder", "{} Espresso Machine"),
            (
                Trait("Stainless", "Brushed stainless steel, inside and out."),
                Trait("Compact", "Takes no more room on the counter than a cereal box."),
                Trait("Precision", "Holds what you set to within one degree, one gram or one click."),
                Trait("Matte Black", "A matte finish that hides fingerprints."),
                Trait("Double-Wall", "Keeps the heat in the cup and off your fingers."),
            ),
            ("Every part comes apart for cleaning.", "A card with three starter recipes is in the box."),
            misfits=(
                ("Double-Wall", "Grinder"),
                ("Double-Wall", "Espresso"),
            ),
        ),
        Leaf(
            "Coffee Beans",
            "coffee-bean",
            (9, 29),
            (
                "{} House Blend 250 g",
                "{} Espresso Roast 500 g",
                "{} Filter Roast 500 g",
                "{} Single Origin 500 g",
                "{} Tasting Box 4 × 200 g",
            ),
            (
                Trait("Ethiopian", "Jasmine and bergamot, with a finish of ripe apricot."),
                Trait("Colombian", "Milk chocolate and red apple, round and easy."),
                Trait("Sumatran", "Cedar, dark cocoa and a heavy, syrupy body."),
                Trait("Decaf", "Decaffeinated with water alone, so the caramel notes stay."),
                Trait("Honey Process", "Dried in its own fruit for a soft brown-sugar sweetness."),
            ),
            ("Roasted to order and dated on the bag.", "Bought directly from the growers' cooperative."),
        ),
        Leaf(
            "Cookware",
            "cookware",
            (35, 279),
            (
                "24 cm {} Frying Pan",
                "2 L {} Saucepan",
                "28 cm {} Sauté Pan",
                "5 L {} Dutch Oven",
                "{} Cookware Set of Five",
            ),
            (
                Trait("Cast Iron", "Holds its heat through a whole batch of pancakes."),
                Trait("Carbon Steel", "Light enough to toss, and better with every meal."),
                Trait("Copper-Core", "A copper layer follows the flame within seconds."),
                Trait("Non-Stick", "A ceramic coating lets eggs slide out without oil."),
                Trait("Tri-Ply", "Three bonded layers heat evenly to the rim."),
            ),
            ("Works on gas, induction and in the oven.", "Riveted handles stay cool."),
        ),
        Leaf(
            "Kitchen Knives",
            "kitchen-knife",
            (19, 219),
            ("{} Paring Knife", "{} Bread Knife", "{} Santoku", "20 cm {} Chef's Knife", "{} Knife Block Set"),
            (
                Trait("Damascus", "Sixty-seven folded layers give each blade its own pattern."),
                Trait("Forged", "Forged in one piece from tip to tang."),
                Trait("Olive Wood", "The olive-wood handle fits the palm and ages well."),
                Trait("Hammered", "Dimples along the blade keep slices from sticking."),
                Trait("High-Carbon", "Takes a fine edge and keeps it for months."),
            ),
            ("Arrives sharp enough to slice a tomato by its own weight.", "Hand wash only."),
        ),
        Leaf(
            "Bakeware",
            "bakeware",
            (15, 99),
            ("{} Loaf Tin", "{} Muffin Tray", "{} Springform Pan", "{} Proofing Basket Set", "{} Baking Set of Six"),
            (
                Trait("Heavy-Gauge", "Thick steel that does not buckle in a hot oven."),
                Trait("Silicone-Lined", "Cakes drop out without butter or paper."),
                Trait("Ceramic", "Goes from oven to table in one piece."),
                Trait("Perforated", "Fine holes let steam out for a crisp crust."),
                Trait("Vintage", "Fluted sides from a 1930s pattern."),
            ),
            ("Safe up to 230 °C.", "Stacks with the rest of the range."),
            misfits=(
                ("Ceramic", "Basket"),
                ("Silicone-Lined", "Basket"),
                ("Heavy-Gauge", "Basket"),
            ),
        ),
        Leaf(
            "Food Storage",
            "food-storage",
            (12, 79),
            (
                "{} Snack Box",
                "{} Lunch Box",
                "{} Storage Jars, Set of 6",
                "{} Meal Prep Set of 10",
                "{} Pantry Set of 16",
            ),
            (
                Trait("Glass", "Borosilicate glass that goes from freezer to oven."),
                Trait("Leakproof", "Four clips and a gasket keep soup where it belongs."),
                Trait("Bamboo-Lid", "Bamboo lids double as small plates."),
                Trait("Stackable", "One footprint for every size, so that shelves stay tidy."),
                Trait("Insulated", "Keeps lunch hot for five hours."),
            ),
            ("Free of BPA.", "The dishwasher's top rack is fine."),
            misfits=(
                ("Insulated", "Jars"),
                ("Insulated", "Pantry"),
            ),
        ),
    ),
)
