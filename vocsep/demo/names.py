"""Names of demo songs."""

from vocsep.demo.signals import random_for

# Four lists of 32 words each: a song's number, 20 bits, picks one of each.
_WORDS = tuple(
    line.split()
    for line in (
        "Amber Ashen Brass Cobalt Copper Coral Crimson Distant Electric Fallen Gentle Golden Hollow Idle "
        "Ivory Jaded Lunar Marble Mellow Midnight Narrow Northern Paper Quiet Rapid Scarlet Silver Solar "
        "Tidal Velvet Wild Winter",
        "Anchors Arcade Atlas Bandits Canyon Choir Comets Dynamo Echoes Engines Foxes Gardens Harbour "
        "Hotel Islands Kites Lanterns Machines Magnets Motel Orchard Parade Pilots Radio Ravens Rivers "
        "Satellites Sparrows Theatre Tigers Union Wolves",
        "After Against Almost Another Beneath Beyond Broken Calling Carry Chasing Dancing Endless Falling "
        "Finding Forget Holding Leaving Losing Making No One Only Open Over Running Second Sinking Some "
        "Under Waking Waiting Without",
        "Autumn Bridges Candles Circles Daylight Distance Embers Fire Ghosts Gravity Home Honey June "
        "Letters Light Mercury Mirrors Morning Oceans Promises Rain Roads Seasons Shadows Silence Sleep "
        "Snow Stories Summer Thunder Water Windows",
    )
)


def song_name(seed: int, index: int) -> str:
    """Name a song `Artist - Title` in ASCII, by other words for each seed and each index below 2**20."""
    bits = 20
    number = (index * 0x9E3B5 + int(random_for(seed, 0, "names").integers(1 << bits))) % (1 << bits)
    # Each step can be undone, so two indices never meet.
    for factor in (0xC2B2B, 0x85EBD):
        number = (number ^ (number >> bits // 2)) * factor % (1 << bits)
    number ^= number >> bits // 2
    first, second, third, fourth = (words[number >> 5 * i & 31] for i, words in enumerate(_WORDS))
    return f"{first} {second} - {third} {fourth}"
