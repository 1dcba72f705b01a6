"""What the demo shop sells under Outdoor & Camping."""

from offline.commands.demo_shop.vocabulary import Department, Leaf, Trait

OUTDOOR = Department(
    "Outdoor & Camping",
    (("Fernway", "Pebble Creek"), ("Trailhead", "Larkspur Outfitters"), ("Nordkamm", "Summit & Sons")),
    (
        Leaf(
            "Tents",
            "tent",
            (79, 349),
            (
                "1-Person {} Tent",
                "2-Person {} Tent",
                "3-Person {} Tent",
                "4-Person {} Dome Tent",
                "6-Person {} Cabin Tent",
            ),
            (
                Trait("Ultralight", "Packs down to the size of a loaf of bread and all but disappears in a backpack."),
                Trait("All-Season", "A steep fly and a full set of guy lines stand up to snow and gusts."),
                Trait("Quick-Pitch", "Colour-coded poles put it up in four minutes, even after dark."),
                Trait("Storm-Proof", "Taped seams and a bathtub floor keep a night of rain outside."),
                Trait("Stargazer", "A mesh roof leaves the view open on clear nights."),
            ),
            ("Two vestibules keep boots and packs dry.", "Stakes, guy lines and a repair sleeve are included."),
        ),
        Leaf(
            "Sleeping Bags",
            "sleeping-bag",
            (39, 229),
            (
                "Summer {} Sleeping Bag",
                "Kids' {} Sleeping Bag",
                "Three-Season {} Sleeping Bag",
                "Double {} Sleeping Bag",
                "Winter {} Sleeping Bag",
            ),
            (
                Trait("Mummy", "A shaped hood and foot box hold on to every bit of warmth."),
                Trait("Down", "Responsibly sourced duck down lofts back within minutes of unpacking."),
                Trait("Synthetic", "The hollow-fibre fill insulates even when it is damp."),
                Trait("Wide-Cut", "Extra room at the knees suits side sleepers."),
                Trait("Featherlight", "Weighs less than a full water bottle."),
            ),
            ("The two-way zip lets in air where you want it.", "Comes with a compression sack."),
            misfits=(("Mummy", "Double"),),
        ),
        Leaf(
            "Camp Kitchen",
            "camp-kitchen",
            (19, 129),
            ("{} Camp Mug Set", "{} Mess Kit", "{} Camp Kettle", "{} Cook Set for Four", "{} Two-Burner Stove"),
            (
                Trait("Titanium", "Titanium keeps the weight down and never tastes of metal."),
                Trait("Nesting", "Every piece stacks into the largest one."),
                Trait("Enamel", "Speckled enamel shrugs off campfire soot."),
                Trait("Folding", "Handles fold flat for packing and lock for cooking."),
                Trait("Windproof", "Built to boil water on an exposed ridge."),
            ),
            ("Rinses clean with a splash of stream water.", "A drawstring bag keeps soot off your other things."),
            misfits=(
                ("Windproof", "Mug"),
                ("Windproof", "Mess"),
                ("Enamel", "Stove"),
            ),
        ),
        Leaf(
            "Headlamps & Lanterns",
            "headlamp",
            (15, 89),
            ("{} Tent Light", "{} Headlamp 200", "{} Camping Lantern", "{} Headlamp 450", "{} Trail Headlamp 800"),
            (
                Trait("Rechargeable", "Tops up over USB-C in under two hours."),
                Trait("Waterproof", "Sealed for an hour under a metre of water."),
                Trait("Red-Light", "A red mode saves your night vision and your tent mate's sleep."),
                Trait("Long-Burn", "Lasts for six long evenings on one charge."),
                Trait("Featherweight", "So light that you forget you are wearing it."),
            ),
            ("A lock keeps it from switching on in the pack.", "Dims in five steps."),
        ),
        Leaf(
            "Backpacks",
            "backpack",
            (45, 259),
            (
                "18 L {} Daypack",
                "28 L {} Hiking Pack",
                "40 L {} Travel Pack",
                "55 L {} Trekking Pack",
                "70 L {} Expedition Pack",
            ),
            (
                Trait("Ventilated", "A tensioned mesh back keeps air between you and the load."),
                Trait("Roll-Top", "The roll-top closure grows and shrinks with what you carry."),
                Trait("Rainproof", "Comes with a rain cover in its own bottom pocket."),
                Trait("Adjustable", "The harness slides to fit torsos from 42 to 53 centimetres."),
                Trait("Recycled", "Woven from fishing nets and plastic bottles."),
            ),
            ("Hip-belt pockets hold snacks and a phone.", "A sleeve inside takes a three-litre bladder."),
        ),
        Leaf(
            "Hiking Boots",
            "hiking-boot",
            (69, 239),
            (
                "{} Approach Shoes",
                "Low-Cut {} Hiking Shoes",
                "Mid {} Hiking Boots",
                "Leather {} Hiking Boots",
                "Alpine {} Trekking Boots",
            ),
            (
                Trait("Waterproof", "A breathable membrane keeps puddles out and lets sweat escape."),
                Trait("Wide-Fit", "A roomier last gives toes space on long descents."),
                Trait("Grippy", "Deep lugs bite into mud, roots and wet rock."),
                Trait("Cushioned", "A soft midsole takes the sting out of rocky trails."),
                Trait("Resoleable", "Stitched so that a cobbler can give them a second life."),
            ),
            ("Needs no breaking in.", "A rubber rand guards the toes."),
        ),
    ),
)
