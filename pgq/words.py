"""256 short words, one for each byte, for the names of tasks and pools (see `pgq.ids`)."""

_TEXT = """
acid acre aero alarm alpha amber angel ankle apple april arena armor arrow atlas atom aunt autumn avocado badge
bagel bakery ballad bamboo banana banjo basil basket beach beacon beaver berry bingo birch bison blanket blossom
blue bonus border bottle bridge bronze brook bucket budget bugle butter button cabin cactus camel camera canal
candle canoe canyon carbon cargo carpet castle cedar cello chalk charm cherry chess cider cinema circle citrus clay
cliff clock cloud clover coach cobalt cocoa comet copper coral cotton cradle crayon cricket crystal cube curry daisy
dance dawn delta denim desert diamond disco dolphin domino dragon drum dune eagle earth echo eclipse eight elbow elm
ember emerald engine falcon feather fern fiddle field finch fjord flame flint flute forest fossil fox galaxy garden
garlic gecko ginger globe gravel harvest hickory iceberg iris jacket jasmine juniper kiwi ladder lagoon lantern lark
lava lemon lilac lily linen lion lizard lobster lotus lunar magnet mango maple marble mars meadow melody mercury
mesa mint mirror monday moss mustard nebula nectar needle nickel north oak oasis ocean olive onyx opal orange orbit
orchid otter owl oxygen paper parrot pasta peach pearl pebble pepper piano pilot pine planet plum polar pony poppy
prairie puzzle quartz quilt rabbit radar rain raven reef ribbon river robin rocket ruby saddle saffron salmon
sapphire satin saturn scarlet shadow silver sky snow solar spice spring spruce star stone sugar summer sunset tango
teal temple thunder tiger timber topaz tulip tundra turtle umber valley velvet violet walnut water wave willow
winter wolf zebra zenith zinc
"""
WORDS = tuple(_TEXT.split())
