"""What the demo shop sells under Hobbies & Games."""

from offline.commands.demo_shop.vocabulary import Department, Leaf, Trait

HOBBIES = Department(
    "Hobbies & Games",
    (("Paper Kite", "Rainy Day"), ("Inkwell", "Tabletop Tales"), ("Marlowe & Finch", "Studio Sepia")),
    (
        Leaf(
            "Board Games",
            "board-game",
            (14, 89),
            ("{} Card Game", "{} Dice Game", "{} Family Board Game", "{} Mystery Game", "{} Strategy Game"),
            (
                Trait("Cooperative", "Everybody wins together, or nobody does."),
                Trait("Two-Player", "A tight duel in half an hour."),
                Trait("Medieval", "Trade, build and betray in a walled city."),
                Trait("Space", "Settle five worlds before the sun goes out."),
                Trait("Woodland", "Foxes, owls and badgers race for the harvest."),
            ),
            ("Rules are explained in ten minutes.", "Nothing in the box is plastic."),
        ),
        Leaf(
            "Jigsaw Puzzles",
            "puzzle",
            (9, 59),
            (
                "100-Piece {} Puzzle",
                "500-Piece {} Puzzle",
                "1,000-Piece {} Puzzle",
                "Wooden {} Puzzle",
                "2,000-Piece {} Puzzle",
            ),
            (
                Trait("Botanical", "Plates from a nineteenth-century herbarium."),
                Trait("City Map", "Every lane of a European old town."),
                Trait("Mountain Lake", "Mirror-still water, and a great deal of sky."),
                Trait("Vintage Poster", "Travel posters of the 1920s."),
                Trait("Night Sky", "Constellations that glow in the dark."),
            ),
            ("Linen-finished pieces with a snug fit.", "A poster of the picture is included."),
        ),
        Leaf(
            "Painting & Drawing",
            "art",
            (9, 129),
            (
                "{} Sketching Pencils, Set of 12",
                "{} Brush Set",
                "{} Watercolour Set",
                "{} Marker Set",
                "{} Field Easel",
            ),
            (
                Trait("Beginner", "Everything for the first month, and nothing you will outgrow."),
                Trait("Artist-Grade", "High pigment load and lightfast for a century."),
                Trait("Pocket", "Made for cafés, trains and park benches."),
                Trait("Pastel", "Soft, chalky shades that blend under a fingertip."),
                Trait("Landscape", "Greens, ochres and skies, chosen by a plein-air painter."),
            ),
            ("Comes in a tin that closes tightly.", "Refills are sold singly."),
            misfits=(
                ("Pastel", "Easel"),
                ("Pastel", "Brush"),
                ("Landscape", "Brush"),
            ),
        ),
        Leaf(
            "Knitting & Yarn",
            "yarn",
            (7, 99),
            ("{} Yarn, 100 g", "{} Sock Yarn Duo", "{} Hat Knitting Kit", "{} Needle Set", "{} Blanket Kit"),
            (
                Trait("Merino", "Spun from merino so soft that babies approve."),
                Trait("Alpaca", "Warm, light, with a gentle halo."),
                Trait("Hand-Dyed", "Dyed by the pot, so that no two skeins agree."),
                Trait("Bamboo", "Smooth, cool, and quiet in the hand."),
                Trait("Chunky", "Grows fast enough for one film evening."),
            ),
            ("The pattern is written for beginners.", "A project bag is included."),
            misfits=(
                ("Merino", "Needle"),
                ("Alpaca", "Needle"),
                ("Hand-Dyed", "Needle"),
                ("Chunky", "Needle"),
            ),
        ),
        Leaf(
            "Building Kits",
            "kit",
            (15, 179),
            ("{} Mini Kit", "{} Clock Kit", "{} Model Kit", "{} Robot Kit", "{} Marble Run Kit"),
            (
                Trait("Wooden", "Laser-cut plywood that snaps together without glue."),
                Trait("Solar", "Moves by itself in the sun."),
                Trait("Steampunk", "Brass gears, all of them turning."),
                Trait("Programmable", "Write its behaviour in blocks or in Python."),
                Trait("Classic", "The one that your grandparents built."),
            ),
            ("Takes two rainy afternoons.", "Spare parts come along, as some always roll away."),
        ),
        Leaf(
            "Notebooks & Pens",
            "notebook",
            (5, 79),
            ("{} Gel Pens, Set of 6", "{} Pocket Notebook", "{} Sketchbook", "{} Planner", "{} Fountain Pen"),
            (
                Trait("Dotted", "A faint dot grid that lines up drawings and lists."),
                Trait("Leather", "Vegetable-tanned leather that remembers where it has been."),
                Trait("Recycled", "Recycled paper with a pleasant tooth."),
                Trait("Lay-Flat", "Sewn so that it stays open at any page."),
                Trait("Refillable", "New ink or paper in seconds."),
            ),
            ("Takes ink without bleeding through.", "An elastic keeps it shut."),
            misfits=(
                ("Dotted", "Pen"),
                ("Leather", "Pen"),
                ("Lay-Flat", "Pen"),
                ("Recycled", "Fountain"),
            ),
        ),
    ),
)
