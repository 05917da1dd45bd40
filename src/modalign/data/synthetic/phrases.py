"""The vocabulary of the synthetic shop.

No word names a colour, a pattern or a shape: only the pictures show those, and a test checks every
text. Each textual attribute has several wordings.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

# Category -> material family -> wordings of the material. Only plausible pairs are listed.
MATERIALS: Final[Mapping[str, Mapping[str, tuple[str, ...]]]] = {
    "mug": {
        "clay": ("stoneware", "glazed ceramic", "fine porcelain"),
        "metal": ("enamelled steel", "stainless steel", "brushed metal"),
        "plant": ("bamboo fibre", "rice husk", "plant-based bamboo"),
        "recycled": ("recycled glass", "recycled plastic", "reclaimed ocean plastic"),
    },
    "teapot": {
        "clay": ("stoneware", "glazed ceramic", "terracotta clay"),
        "metal": ("cast iron", "stainless steel", "hammered metal"),
        "plant": ("bamboo-handled", "bamboo-trimmed", "rattan-handled"),
        "recycled": ("recycled glass", "reclaimed glass", "upcycled glass"),
    },
    "bowl": {
        "wood": ("oak", "acacia wood", "walnut wood"),
        "clay": ("stoneware", "glazed ceramic", "porcelain"),
        "plant": ("bamboo", "coconut fibre", "pressed bamboo"),
        "metal": ("enamelled steel", "stainless steel", "hammered metal"),
        "recycled": ("recycled glass", "recycled plastic", "upcycled glass"),
    },
    "vase": {
        "wood": ("mango wood", "oak", "beech wood"),
        "clay": ("stoneware", "glazed ceramic", "terracotta clay"),
        "metal": ("brushed metal", "zinc", "hammered steel"),
        "recycled": ("recycled glass", "upcycled bottle glass", "reclaimed glass"),
    },
    "lamp": {
        "wood": ("oak", "ash wood", "beech wood"),
        "plant": ("rattan", "woven bamboo", "seagrass"),
        "clay": ("ceramic", "stoneware", "terracotta clay"),
        "metal": ("powder-coated steel", "brushed metal", "spun aluminium"),
        "textile": ("linen-shaded", "cotton-shaded", "woven linen"),
    },
    "chair": {
        "wood": ("solid oak", "beech wood", "ash wood"),
        "plant": ("rattan", "bamboo", "woven cane"),
        "metal": ("powder-coated steel", "tubular metal", "aluminium"),
        "textile": ("wool-upholstered", "linen-covered", "cotton-covered"),
        "recycled": ("recycled plastic", "reclaimed timber", "upcycled plastic"),
    },
    "clock": {
        "wood": ("oak", "walnut wood", "beech wood"),
        "plant": ("cork", "bamboo", "pressed cork"),
        "clay": ("ceramic", "porcelain", "stoneware"),
        "metal": ("brushed metal", "stainless steel", "aluminium"),
        "recycled": ("recycled plastic", "upcycled vinyl", "reclaimed plastic"),
    },
    "cushion": {
        "textile": ("linen", "organic cotton", "lambswool"),
        "plant": ("hemp", "bamboo viscose", "kapok-filled"),
        "recycled": ("recycled polyester", "recycled yarn", "upcycled fabric"),
    },
    "tote bag": {
        "textile": ("cotton canvas", "linen", "organic cotton"),
        "plant": ("jute", "hemp", "woven raffia"),
        "recycled": ("recycled polyester", "upcycled sailcloth", "recycled bottle yarn"),
    },
    "T-shirt": {
        "textile": ("organic cotton", "merino wool", "linen"),
        "plant": ("hemp", "bamboo viscose", "beech-fibre"),
        "recycled": ("recycled cotton", "recycled polyester", "reclaimed yarn"),
    },
    "backpack": {
        "textile": ("waxed canvas", "cotton canvas", "wool felt"),
        "plant": ("hemp", "cork", "jute"),
        "recycled": ("recycled polyester", "upcycled tarpaulin", "recycled nylon"),
    },
    "bottle": {
        "metal": ("stainless steel", "insulated steel", "brushed aluminium"),
        "plant": ("bamboo-capped", "sugarcane bioplastic", "cork-stoppered"),
        "wood": ("beech-capped", "oak-stoppered", "ash-wood-lidded"),
        "recycled": ("recycled glass", "recycled plastic", "reclaimed glass"),
    },
}

NOUNS: Final[Mapping[str, tuple[str, ...]]] = {
    "mug": ("mug", "coffee mug", "tea mug", "cup"),
    "teapot": ("teapot", "tea pot for two", "family teapot"),
    "bowl": ("bowl", "serving bowl", "breakfast bowl"),
    "vase": ("vase", "flower vase", "bud vase"),
    "lamp": ("table lamp", "lamp", "bedside lamp"),
    "chair": ("chair", "dining chair", "side chair"),
    "clock": ("wall clock", "clock", "quiet wall clock"),
    "cushion": ("cushion", "throw cushion", "sofa pillow"),
    "tote bag": ("tote bag", "shopper", "carry-all tote"),
    "T-shirt": ("T-shirt", "tee", "short-sleeved T-shirt"),
    "backpack": ("backpack", "rucksack", "day pack"),
    "bottle": ("water bottle", "drinking bottle", "flask"),
}

# Occasion -> short forms for titles, then sentences for descriptions.
OCCASIONS: Final[Mapping[str, tuple[tuple[str, ...], *tuple[str, ...]]]] = {
    "camping": (
        ("for camping", "for the campsite", "for the trail"),
        "It was made for camping trips and nights under canvas.",
        "Take it hiking, put it by the campfire, and rinse it in the stream.",
        "At home beside a tent, on the trail and anywhere outdoors.",
    ),
    "baby": (
        ("for the nursery", "for baby's first years", "for little ones"),
        "Gentle enough for the nursery and loved by babies and toddlers.",
        "Parents of newborns tell us it is the gift they used most.",
        "Designed with small children in mind, and safe in a baby's room.",
    ),
    "office": (
        ("for the office", "for your desk", "for the home office"),
        "Keeps you company at the desk through long working days.",
        "A calm thing to have in the office, between meetings and emails.",
        "Colleagues will ask where you found it for your workplace.",
    ),
    "party": (
        ("for parties", "for festive evenings", "for celebrations"),
        "Bring it out when friends come over to celebrate.",
        "Made for birthdays, dancing and parties that end late.",
        "It has survived many a festive night with a house full of guests.",
    ),
    "wedding": (
        ("for newlyweds", "as a wedding present", "for the wedding list"),
        "A favourite on wedding lists and a lasting present for the couple.",
        "Bride and groom get a gift box and a handwritten card with it.",
        "Think of it for anniversaries, engagements and the happy couple.",
    ),
    "garden": (
        ("for the garden", "for balcony and patio", "for gardeners"),
        "It spends the summer in the garden, among the tomatoes and the herbs.",
        "Gardeners like it on the patio, and rain does not trouble it.",
        "Good company on the balcony, next to the watering can.",
    ),
    "student": (
        ("for student rooms", "for a first flat", "for small flats"),
        "Fits a student room, a shared kitchen and a small budget.",
        "A first-flat classic for university days and narrow shelves.",
        "Sized for dormitories and studio flats where every corner counts.",
    ),
    "wellness": (
        ("for slow evenings", "for yoga and rest", "for a quiet hour"),
        "Meant for unhurried evenings, a bath, a book and deep breaths.",
        "Part of a soothing ritual, before yoga or after a long day.",
        "It helps you to relax, meditate and sleep well.",
    ),
}

QUALITIES: Final[Mapping[str, tuple[tuple[str, ...], *tuple[str, ...]]]] = {
    "easy-care": (
        ("easy-care", "machine-washable", "wipe-clean"),
        "Goes straight into the machine: cleaning takes no effort.",
        "Easy to wash, quick to dry, nothing to fuss over.",
    ),
    "handmade": (
        ("handmade", "hand-finished", "artisan"),
        "Each one is made by hand in a small workshop, so no two are alike.",
        "An artisan finishes every piece by hand and signs it underneath.",
    ),
    "vegan": (
        ("vegan", "animal-free", "certified vegan"),
        "Certified vegan: nothing in it comes from an animal.",
        "Free of leather, wool grease and animal glue, and fully vegan.",
    ),
    "fair trade": (
        ("fair-trade", "fairly traded", "cooperative-made"),
        "Fairly traded, and the cooperative that makes it sets its own prices.",
        "Fair-trade certified: the people who make it earn a living wage.",
    ),
    "repairable": (
        ("repairable", "lifetime-guaranteed", "built-to-last"),
        "Guaranteed for ten years, with spare parts for longer than that.",
        "If something breaks we repair it free of charge, for life.",
    ),
    "limited": (
        ("limited-edition", "numbered", "collector's"),
        "A numbered edition of two hundred; when they are gone they are gone.",
        "Collectors take note: this limited series will not be made again.",
    ),
    "lightweight": (
        ("lightweight", "featherlight", "easy-to-carry"),
        "It weighs next to nothing, so you will hardly notice carrying it.",
        "Light in the hand and light in the luggage.",
    ),
    "premium": (
        ("premium", "luxury", "boutique"),
        "A luxurious piece in a gift box, for those who want the very best.",
        "Premium from the first touch, as found in fine hotels.",
    ),
}

BRANDS: Final = (
    *("Hollin & Rye", "Nordvik", "Casa Lumbre", "Fenwick Mill"),
    *("Okaya", "Petit Jour", "Brackwater", "Tallow House"),
)

MODELS: Final = (
    *("Alder", "Anouk", "Bexley", "Briony", "Calla", "Corin", "Dorset", "Edda", "Elio", "Fable"),
    *("Finch", "Gaspard", "Hazel", "Ines", "Juno", "Kestrel", "Lark", "Lior", "Maren", "Milo"),
    *("Nell", "Oriel", "Otis", "Paloma", "Quill", "Rowan", "Saga", "Tove", "Una", "Wren"),
)

OPENINGS: Final = (
    "Meet {model}, our {material} {noun}.",
    "{brand} brings you {a_material} {noun} that does its job and a little more.",
    "The {model} is {a_material} {noun} you will reach for every day.",
    "A {noun} to keep: {material}, thoughtfully made by {brand}.",
    "We fell for this {material} {noun} at first sight.",
    "{material_capital}, and made to last: a {noun} from {brand}.",
)

CLOSINGS: Final = (
    "Dispatched within two days.",
    "Comes with a card telling its story.",
    "You have thirty days to change your mind.",
    "Our customers come back for a second one.",
    "Measurements are on the last photograph.",
    *("", "", ""),
)
