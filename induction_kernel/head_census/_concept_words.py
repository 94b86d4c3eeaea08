"""Words for prompts: English words of several tokens, and English nouns with their French, German and Spanish.

Written for this package. Whether a word has several tokens is the tokenizer's affair: `_concept_prompts` looks.
"""

from __future__ import annotations

__all__ = ["LONG_WORDS", "TRANSLATED"]

LONG_WORDS = tuple(
    (
        "windowpane hummingbird rhododendron marmalade chandelier archipelago blacksmith buttercup caterpillar "
        "cauliflower cobblestone dandelion dragonfly earthenware eggplant fingernail flagpole gingerbread goldfish "
        "grasshopper hedgehog honeysuckle jellyfish kingfisher ladybird mockingbird nightingale nutcracker oatmeal "
        "paintbrush peppercorn pinecone pomegranate porcupine quicksilver rattlesnake sandcastle scarecrow seahorse "
        "silkworm snowdrift spearmint stalactite sunflower tambourine teapot toadstool tumbleweed turpentine verandah "
        "wallflower weathervane wheelbarrow whirlpool woodpecker xylophone zucchini apricot artichoke asparagus "
        "bagpipe bandicoot barnacle bassoon beetroot blackcurrant bobsleigh bookbinder broomstick bulrush cantaloupe "
        "cardigan carnation castanet chrysanthemum cinnamon clarinet clavichord coriander cormorant cornflower "
        "crankshaft crocodile cuttlefish cyclamen daffodil doorknob dromedary drumstick dulcimer elderberry "
        "fennel ferret flamingo forklift foxglove gargoyle gazelle gooseberry gramophone greyhound hacksaw halibut "
        "hammock harpsichord hawthorn haystack hazelnut hippopotamus hovercraft hyacinth icicle jackdaw juniper kayak "
        "kestrel lapwing larkspur lavender lawnmower lentil lilac lobster magpie mandolin marigold meerkat "
        "mistletoe moccasin mulberry muskrat narwhal nasturtium oboe ocelot orangutan oregano osprey pangolin parsnip "
        "partridge pelican periwinkle petunia pheasant pistachio platypus plimsoll puffin radish raspberry rhubarb "
        "sandpiper sardine saxophone scallop shuttlecock skylark snapdragon snorkel sparrowhawk springbok starling "
        "stethoscope sycamore tangerine tarantula tarragon thimble trombone tugboat turnip ukulele walnut walrus "
        "warthog watercress wisteria wolverine wombat yarrow zeppelin "
        "Timbuktu Ljubljana Reykjavik Antananarivo Ouagadougou Bratislava Wolverhampton Schenectady Albuquerque "
        "Chattanooga Kathmandu Bucharest Valladolid Gothenburg Samarkand Ulaanbaatar Windhoek Zanzibar Yaroslavl "
        "Montpellier Aberystwyth Tegucigalpa Bujumbura Nouakchott Trondheim Szczecin Dubrovnik Marrakesh Guadalajara"
    ).split()
)

_ROWS = """
cat|chat|Katze|gato
dog|chien|Hund|perro
horse|cheval|Pferd|caballo
cow|vache|Kuh|vaca
bird|oiseau|Vogel|pájaro
fish|poisson|Fisch|pez
house|maison|Haus|casa
door|porte|Tür|puerta
window|fenêtre|Fenster|ventana
roof|toit|Dach|techo
kitchen|cuisine|Küche|cocina
bed|lit|Bett|cama
chair|chaise|Stuhl|silla
book|livre|Buch|libro
letter|lettre|Brief|carta
knife|couteau|Messer|cuchillo
spoon|cuillère|Löffel|cuchara
bread|pain|Brot|pan
cheese|fromage|Käse|queso
milk|lait|Milch|leche
water|eau|Wasser|agua
apple|pomme|Apfel|manzana
egg|oeuf|Ei|huevo
salt|sel|Salz|sal
tree|arbre|Baum|árbol
flower|fleur|Blume|flor
leaf|feuille|Blatt|hoja
river|fleuve|Fluss|río
sea|mer|Meer|mar
mountain|montagne|Berg|montaña
bridge|pont|Brücke|puente
road|route|Straße|camino
church|église|Kirche|iglesia
school|école|Schule|escuela
city|ville|Stadt|ciudad
village|village|Dorf|pueblo
king|roi|König|rey
queen|reine|Königin|reina
man|homme|Mann|hombre
woman|femme|Frau|mujer
child|enfant|Kind|niño
brother|frère|Bruder|hermano
sister|soeur|Schwester|hermana
friend|ami|Freund|amigo
hand|main|Hand|mano
foot|pied|Fuß|pie
head|tête|Kopf|cabeza
heart|coeur|Herz|corazón
eye|oeil|Auge|ojo
ear|oreille|Ohr|oreja
sun|soleil|Sonne|sol
moon|lune|Mond|luna
star|étoile|Stern|estrella
snow|neige|Schnee|nieve
rain|pluie|Regen|lluvia
wind|vent|Wind|viento
fire|feu|Feuer|fuego
stone|pierre|Stein|piedra
wood|bois|Holz|madera
iron|fer|Eisen|hierro
winter|hiver|Winter|invierno
summer|été|Sommer|verano
night|nuit|Nacht|noche
week|semaine|Woche|semana
"""
_TABLE = [row.split("|") for row in _ROWS.split()]

TRANSLATED = {
    language: tuple((row[at], row[0]) for row in _TABLE if row[at] != row[0])
    for at, language in ((1, "French"), (2, "German"), (3, "Spanish"))
}
"""Language -> pairs of its word and the English one."""
