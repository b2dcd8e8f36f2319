#!/usr/bin/env python3
"""Writes the storyteller corpus: small English stories from a seeded grammar.

Every sentence below was written for this project. Standard library only; the
same seed gives the same bytes.

    python generate.py --out build --stories 30000 --seed 7

writes build/corpus.jsonl, words.txt and held-out.json (the last two next to
this file, unless --data says otherwise).
"""

import argparse
import json
import pathlib
import random
import re

HELD_OUT_MODULUS = 16
HELD_OUT_PROMPTS = 50

GIRLS = "Mia Lily Nora Rosa Ella Ivy Daisy Zoe Ruby Luna".split()
BOYS = "Tim Max Leo Sam Ben Oscar Finn Hugo Toby Milo".split()

ANIMALS = (
    "fox rabbit bear mouse duck owl hedgehog cat dog frog squirrel turtle goat "
    "otter badger beaver mole pony"
).split()
HEROES = ANIMALS + ["girl", "boy", "robot", "dragon"]
FRIENDS = "rabbit bear mouse duck hedgehog cat dog frog fox".split()
HELPERS = "owl squirrel turtle goat otter badger beaver mole pony".split()
TRAITS = "little kind brave shy curious clever cheerful gentle quiet young small friendly".split()

PLACES = {
    "river": ["near the river", "beside the river", "by the river"],
    "lake": ["near the lake", "beside a blue lake"],
    "forest": ["in the forest", "at the edge of the forest"],
    "farm": ["on a farm", "on a small farm"],
    "village": ["in a small village", "in a quiet village"],
    "hill": ["on a green hill", "on a hill"],
    "sea": ["by the sea", "near the sea"],
    "meadow": ["in a wide meadow", "near the meadow"],
    "garden": ["in a sunny garden", "in a big garden"],
    "valley": ["in a quiet valley", "in a green valley"],
    "mountain": ["at the foot of a mountain", "near a tall mountain"],
    "bridge": ["near an old bridge", "by the stone bridge"],
    "island": ["on a little island", "on a green island"],
    "mill": ["in an old mill", "next to the old mill"],
    "pond": ["next to a pond", "by a round pond"],
    "cottage": ["in a tiny cottage", "in a warm cottage"],
}

# "lost" says how such a thing gets lost; "use" is what its owner likes to do.
OBJECTS = {
    "kite": ("red blue yellow bright", "wind", "fly it on windy days"),
    "ball": ("red blue round green", "roll", "roll it down the hill"),
    "lantern": ("small old bright golden", "drop", "carry it in the evening"),
    "scarf": ("red warm long blue", "wind", "wear it on cold days"),
    "blanket": ("soft warm green blue", "drop", "sit on it in the sun"),
    "umbrella": ("yellow big red green", "wind", "take it out in the rain"),
    "basket": ("big round brown new", "drop", "fill it with berries"),
    "map": ("old big yellow secret", "wind", "look at it for hours"),
    "whistle": ("silver shiny tiny wooden", "drop", "blow it very loudly"),
    "bell": ("golden little silver shiny", "drop", "ring it every morning"),
    "drum": ("big red wooden new", "roll", "play it for the birds"),
    "flute": ("wooden silver thin old", "drop", "play a song on it"),
    "rope": ("long strong thick new", "drop", "swing on it all day"),
    "boat": ("white little blue wooden", "float", "sail it on the water"),
    "wagon": ("red wooden little green", "roll", "pull it up and down the road"),
    "hat": ("tall green straw funny", "wind", "wear it all day long"),
    "book": ("thick old blue little", "drop", "read it under a tree"),
    "key": ("golden old tiny silver", "drop", "wear it on a string"),
    "cup": ("blue white tin little", "drop", "drink warm milk from it"),
    "shell": ("pink white round shiny", "drop", "listen to the sea in it"),
    "button": ("golden red round shiny", "roll", "polish it every day"),
    "spoon": ("wooden big silver long", "drop", "stir the soup with it"),
}

def held_out(character, place, thing):
    """The rule that keeps a combination out of the corpus; the test repeats it."""
    return sum(map(ord, character + place + thing)) % HELD_OUT_MODULUS == 0


def a(text):
    return ("an " if text[0].lower() in "aeiou" else "a ") + text


def cap(text):
    for i, ch in enumerate(text):
        if ch.isalpha():
            return text[:i] + ch.upper() + text[i + 1 :]
    return text


def sentences(paragraph):
    return re.sub(r'((?:^|[.!?]"? )"?)([a-z])', lambda m: m[1] + m[2].upper(), paragraph)


class Who:
    def __init__(self, name, kind, trait):
        self.n, self.kind, self.trait = name, kind, trait
        girl = name in GIRLS
        self.he, self.him, self.his = ("she", "her", "her") if girl else ("he", "him", "his")
        self.He, self.His = self.he.capitalize(), self.his.capitalize()
        self.the = f"little {name}" if kind in ("girl", "boy") else f"{name} the {kind}"


class Helper:
    def __init__(self, kind, trait):
        self.n, self.the = f"the {kind}", a(f"{trait} {kind}")


class Thing:
    def __init__(self, noun, adj):
        self.n, self.adj = noun, adj
        self.full = f"{adj} {noun}"
        _, self.lost, self.use = OBJECTS[noun]


class Teller:
    def __init__(self, rng):
        self.r = rng

    def pick(self, *options):
        return self.r.choice(options)

    def chance(self, p):
        return self.r.random() < p

    def sample(self, options, n):
        return self.r.sample(list(options), n)

    def person(self, kinds, girl):
        return Who(self.r.choice(GIRLS if girl else BOYS), self.r.choice(kinds), self.r.choice(TRAITS))

    # ---- cast and opening -------------------------------------------------

    def cast(self, want_held_out=False):
        while True:
            kind = self.r.choice(HEROES)
            girl = kind == "girl" or (kind != "boy" and self.chance(0.5))
            h = self.person([kind], girl)
            place = self.r.choice(list(PLACES))
            noun = self.r.choice(list(OBJECTS))
            if held_out(h.kind, place, noun) == want_held_out:
                break
        self.h = h
        # Greedy decoding of a small model takes its favorite name each time. Boy
        # and girl names differ, and a helper without a name cannot clash.
        self.f = self.person([k for k in FRIENDS if k != h.kind], not girl)
        self.g = Helper(self.r.choice([k for k in HELPERS if k != h.kind]), self.pick("old", "wise old", "friendly"))
        self.place = place
        self.at = self.r.choice(PLACES[place])
        self.o = Thing(noun, self.r.choice(OBJECTS[noun][0].split()))

    def opening(self, full=False):
        """full: the first sentences name character, place and object."""
        h, o, at = self.h, self.o, self.at
        who = h.kind if self.chance(0.25) else f"{h.trait} {h.kind}"
        had = self.pick(
            f"{h.He} had {a(o.full)}.",
            f"{h.n} had {a(o.full)}.",
            f"{h.His} favorite thing was {a(o.full)}.",
            f"{h.He} had {a(o.full)} and loved to {o.use}.",
            f"{h.n} had {a(o.full)} and liked to {o.use}.",
        )
        forms = [
            f"Once upon a time, {a(who)} named {h.n} lived {at}. {had}",
            f"Once upon a time, {a(who)} named {h.n} lived {at}. {had}",
            f"Once upon a time, there was {a(who)} named {h.n}. {h.He} lived {at}. {had}",
            f"Once upon a time, there was {a(who)} who lived {at}. {h.His} name was {h.n}. {had}",
            f"{cap(a(who))} lived {at}. {h.His} name was {h.n}. {had}",
            f"{cap(a(who))} lived {at}. {h.His} name was {h.n}, and {h.he} had {a(o.full)}.",
            f"{cap(a(who))} named {h.n} lived {at}. {had}",
            f"{h.n} was {a(who)} who lived {at}. {had}",
            f"{h.n} was {a(who)}. {h.He} lived {at} with {h.his} {o.full}.",
            f"There once was {a(who)} named {h.n} who lived {at}. {had}",
            f"{cap(at)}, there lived {a(who)} named {h.n}. {had}",
            f"{cap(at)} lived {a(who)}. {h.His} name was {h.n}. {had}",
            f"This is the story of {h.n}, {a(who)} who lived {at}. {had}",
            f"Long ago, {a(who)} named {h.n} lived {at}. {had}",
        ]
        if not full:
            forms += [
                f"{cap(h.the)} lived {at}. {had}",
                f"{cap(h.the)} lived {at} with {h.his} {o.full}.",
                f"One day, {a(who)} named {h.n} found {a(o.full)} {at}. {h.He} took it home.",
                f"{cap(h.the)} had {a(o.full)} and lived {at}.",
            ]
        text = self.r.choice(forms)
        if full:
            return text
        if self.chance(0.3):
            text += " " + self.pick(
                f"In the morning, the birds sang and the air smelled of fresh grass.",
                f"Life was quiet there, and the days were long and bright.",
                f"{h.n} liked to get up early and say good morning to the sun.",
                f"Everyone there knew {h.n}, and {h.n} knew everyone.",
                f"{h.He} was small, but {h.he} had big dreams.",
            )
        if self.chance(0.35):
            f = self.f
            text += " " + self.pick(
                f"{h.His} best friend was {f.the}.",
                f"{h.He} had a good friend, {f.the}.",
                f"{f.the} lived next door.",
            )
            self.met = True
        else:
            self.met = False
        return text

    def friend(self):
        """Name of the friend, introduced on first use."""
        if self.met:
            return self.f.n
        self.met = True
        return self.f.the

    def when(self, weather=None):
        w = weather or self.pick("sunny", "bright", "warm", "quiet", "cool")
        t = self.pick("morning", "afternoon", "day")
        return self.pick(f"One {w} {t}", f"One {w} {t}", f"On {a(w)} {t}")

    # ---- arcs ---------------------------------------------------------------

    def lost(self):
        h, o, g = self.h, self.o, self.g
        how = {
            "wind": [
                ("windy", f"a strong wind came and blew the {o.n} away"),
                ("windy", f"the wind pulled the {o.n} high into the air"),
            ],
            "roll": [
                (None, f"the {o.n} rolled down the hill and out of sight"),
                (None, f"the {o.n} rolled away and was gone"),
            ],
            "float": [
                (None, f"the {o.n} drifted away on the water"),
                ("windy", f"the waves carried the {o.n} away"),
            ],
            "drop": [
                (None, f"{h.n} looked around, and the {o.n} was gone"),
                (None, f"{h.n} could not find the {o.n} anywhere"),
            ],
        }[o.lost]
        weather, loss = self.r.choice(how)
        where, get = self.r.choice(
            {
                "wind": [
                    ("high in an old tree", f"{g.the} climbed up and brought it down"),
                    ("on the roof of the barn", f"{g.the} found a ladder and brought it down"),
                    ("on top of a thorn bush", f"{g.the} pulled it out very carefully"),
                ],
                "roll": [
                    ("under a big bush", f"{g.the} crawled in and pushed it out"),
                    ("behind a gray rock", f"{g.the} helped to lift it out"),
                    ("at the bottom of a hole", f"{g.the} reached down and got it out"),
                ],
                "float": [
                    ("under the bridge", f"{g.the} swam out and pulled it back"),
                    ("between the reeds", f"{g.the} used a long stick to bring it back"),
                ],
                "drop": [
                    ("in the tall grass", f"{g.the} had seen it there that morning"),
                    ("beside the path", f"{g.the} had kept it safe all day"),
                    ("under the old bench", f"{g.the} had seen it fall down there"),
                ],
            }[o.lost]
        )
        spots = ["behind the barn", "near the well", "by the garden gate", "under the apple tree", "along the road", "in the kitchen"]
        s1, s2, s3 = self.sample(spots, 3)
        p2 = f"{self.when(weather)}, {loss}. " + self.pick(
            f"{h.n} was very sad.",
            f'"Oh no," cried {h.n}. "My {o.n} is gone!"',
            f"{h.n} sat down and began to cry.",
            f"{h.n} did not know what to do.",
        )
        f = self.friend()
        p3 = self.pick(
            f'{f} came by and asked, "Why are you so sad?" "I lost my {o.n}," said {h.n}. "Then let us look for it together," said {self.f.n}.',
            f'{h.n} ran to {f} and asked, "Have you seen my {o.full}?" "No," said {self.f.n}, "but I will help you look."',
            f'{f} saw that {h.n} was sad. "Do not worry," said {self.f.n}. "We will find your {o.n}."',
        )
        p3 += " " + self.pick(
            f"They looked {s1}. They looked {s2}. The {o.n} was not there.",
            f"First they looked {s1}. Then they looked {s2}. They could not find it.",
            f"They looked {s1} and {s2}, but they only found an old shoe.",
            f"They looked {s1}, {s2} and {s3}. It was not there.",
        )
        p4 = self.pick("At last", "Then", "Just before sunset", "After a long time") + ", "
        p4 += self.pick(f"they saw the {o.n} {where}. ", f"{self.f.n} pointed at something {where}. It was the {o.n}! ", f"they found the {o.n} {where}. ")
        p4 += f"{get}. " + self.pick(
            f'"Thank you," said {h.n}. "You are good friends."',
            f"{h.n} hugged {h.his} friends and laughed.",
            f"{h.n} was so happy that {h.he} danced around the tree.",
            f'"Thank you so much," said {h.n}.',
        )
        end = self.pick(
            f"From that day on, {h.n} took good care of the {o.n}. And when a friend lost something, {h.n} was always the first to help.",
            f"They all walked home together. {h.n} never lost the {o.n} again.",
            f"That evening, {h.n} and {self.f.n} shared a big apple pie. The {o.n} lay safely on the table.",
            f"That night, {h.n} put the {o.n} next to {h.his} bed and slept well.",
        )
        return [p2, p3, p4, end]

    HELP = {
        "lantern": (
            "foggy",
            "had lost {his} way in the fog",
            "I cannot see the path",
            "{He} held the lantern up high. The warm light showed them every stone on the path.",
        ),
        "scarf": ("cold", "sat in the snow and shook", "I am so cold", "{He} put the scarf around {F}. Soon {F} was warm again."),
        "blanket": ("cold", "sat in the wind and shook", "I am so cold", "{He} put the blanket around {F}. Soon {F} was warm again."),
        "umbrella": ("rainy", "stood under a tree in the rain", "I cannot get home, and I am all wet", "{He} opened the umbrella. It was big enough for two, and they walked home side by side."),
        "basket": ("warm", "had too many apples to carry", "They always roll away", "They put all the apples into the basket. Then they carried it home together."),
        "map": ("quiet", "was lost in the woods", "I do not know the way home", "{He} opened the map. They followed the little lines past the rocks and over the stream."),
        "whistle": ("rainy", "was stuck in the mud", "I cannot get out", "{He} blew the whistle three times. All the neighbors heard it and came to help."),
        "bell": ("rainy", "was stuck in the mud", "I cannot get out", "{He} rang the bell as loudly as {hhe} could. All the neighbors heard it and came to help."),
        "drum": ("rainy", "was stuck in the mud", "I cannot get out", "{He} beat the drum as loudly as {hhe} could. All the neighbors heard it and came to help."),
        "flute": ("quiet", "was sick and could not sleep", "My head hurts", "{He} sat by the bed and played a slow song on the flute. Soon {F} slept, and in the morning {F} was well again."),
        "rope": ("rainy", "had fallen into a deep hole", "I cannot climb out", "{He} tied the rope to a tree and let it down. Then {hhe} pulled with all {hhis} might."),
        "boat": ("sunny", "sat on a rock in the middle of the water", "I cannot swim so far", "{He} jumped into the boat and rowed to the rock. Then they rowed back together."),
        "wagon": ("warm", "had hurt {his} foot", "I cannot walk home", "{F} climbed into the wagon, and {H} pulled it all the way home."),
        "hat": ("hot", "wanted to water the dry flowers", "I have nothing to carry the water in", "{He} took off the hat and filled it with water. Soon the flowers stood up tall again."),
        "book": ("rainy", "was sick and had to stay in bed", "I am so bored", "{He} sat down by the bed and read from the book. They laughed so much that {F} felt better."),
        "key": ("cool", "stood in front of a locked gate", "I cannot get in", "{He} tried the key. It turned with a click, and the gate swung open."),
        "cup": ("hot", "lay in the shade and was very thirsty", "I am too tired to walk to the well", "{He} ran to the well and filled the cup with cool water. {F} drank it all and felt strong again."),
        "shell": ("quiet", "missed the sound of the sea", "The sea is so far away", "{He} held the shell to the ear of {F}. They both heard the waves, and {F} began to smile."),
        "button": ("cold", "had lost a button from {his} coat", "The wind blows right in", "{He} took the button, a needle and some thread. Soon the coat was as good as new."),
        "spoon": ("cold", "was hungry and had nothing to eat", "My pot is empty", "{He} lit a fire and stirred a big pot of soup with the spoon. They ate until the pot was empty."),
        "kite": ("windy", "was lost in the woods", "I do not know the way home", "{He} let the kite fly high above the trees. {F} saw it and followed it to the edge of the woods."),
        "ball": ("sunny", "was new here and had no friends", "Nobody plays with me", "{He} rolled the ball to {F}. {F} rolled it back, and they played until the sun went down."),
    }

    def help(self):
        h, o, f = self.h, self.o, self.f
        weather, trouble, says, deed = self.HELP[o.n]
        trouble = trouble.format(his=f.his)
        deed = deed.format(H=h.n, He=h.He, F=f.n, hhe=h.he, hhis=h.his)
        fr = self.friend()
        p2 = f"{self.when(weather)}, " + self.pick(
            f"{h.n} heard a small voice. It was {fr}, who {trouble}.",
            f"{h.n} went for a walk and met {fr}, who {trouble}.",
            f"{h.n} saw that {fr} {trouble}.",
        )
        p2 += " " + self.pick(
            f'{h.n} asked, "What is wrong?" "{says}," said {f.n}.',
            f'"{says}," said {f.n}.',
            f'"Please help me," said {f.n}. "{says}."',
        )
        p3 = self.pick(
            f"{h.n} thought for a moment. ",
            f'"I have an idea," said {h.n}. ',
            f'"Do not be afraid," said {h.n}. "I will help you." ',
            f"{h.n} looked at the {o.n} and smiled. ",
        )
        p3 += deed
        p3 += " " + self.pick(
            f'"Thank you, {h.n}," said {f.n}. "What {a(h.trait)} {h.kind} you are!"',
            f'"Thank you," said {f.n}. "You are a real friend."',
            f"{f.n} was very thankful.",
            f'"You and your {o.n} saved the day," said {f.n}.',
        )
        end = self.pick(
            f"The next day, {f.n} came to visit with a jar of honey. From then on, {h.n} and {f.n} were the best of friends.",
            f"Later, they drank warm tea and told funny stories. {h.n} was glad that {h.he} had helped.",
            f"{h.n} went home to the {self.place} with a warm feeling. It is good to help a friend.",
            f"From that day on, {h.n} took the {o.n} everywhere. You never know when a friend needs help.",
        )
        return [p2, p3, end]

    BUILD = {
        "tree house": ("some boards and a box of nails", "the floor was not straight"),
        "raft": ("some logs and a long rope", "the logs slipped apart"),
        "little bridge": ("some flat stones and a strong board", "the board broke in the middle"),
        "bird house": ("some boards and a small hammer", "the roof fell off"),
        "snow house": ("a lot of snow and two buckets", "the wall fell down"),
        "swing": ("a board and two ropes", "the knot came loose"),
        "sand castle": ("wet sand and a small bucket", "a wave washed it away"),
        "stone oven": ("some stones and some wet clay", "the stones fell down"),
    }

    def build(self):
        h, o, f = self.h, self.o, self.f
        thing = self.r.choice(list(self.BUILD))
        stuff, fail = self.BUILD[thing]
        fr = self.friend()
        p2 = f"{self.when('cold' if thing == 'snow house' else None)}, {h.n} had an idea. " + self.pick(
            f'"Let us build {a(thing)}," {h.he} said to {fr}.',
            f'{h.He} ran to {fr} and said, "Let us build {a(thing)}!"',
            f'{h.He} wanted to build {a(thing)} with {fr}.',
        )
        p2 += " " + self.pick(
            f"They found {stuff}.",
            f"They looked around and found {stuff}.",
            f"{f.n} brought {stuff}.",
        )
        p3 = self.pick(
            f"They worked all morning. But then {fail}.",
            f"They worked and worked, but {fail}.",
            f"At first it was not easy. When they were almost done, {fail}.",
        )
        p3 += " " + self.pick(
            f'"It is too hard," said {f.n}. "We will try again," said {h.n}.',
            f'"Oh dear," said {f.n}. "Let us try once more," said {h.n}.',
            f"{h.n} wanted to give up. But {f.n} said, \"We can do it if we work together.\"",
        )
        g = self.g
        p3 += " " + self.pick(
            f"{g.the} came to help, and this time they worked slowly and carefully.",
            f"They asked {g.the} for help, and {g.n} showed them how to do it.",
            f"They started again, and {g.the} held everything in place.",
        )
        p4 = f"When the sun went down, the {thing} was ready. " + self.pick(
            f"{h.n} put the {o.full} on top, and it looked wonderful.",
            f"{h.n} put the {o.full} right next to it, and everyone clapped.",
            f"It was strong and beautiful, and {h.n} gave {h.his} {o.n} a place beside it.",
        )
        end = self.pick(
            f'"We did it," said {f.n}. They were tired but very proud.',
            f"All the neighbors came to see it. {h.n} and {f.n} had never been so proud.",
            f"From that day on, they met at the {thing} every day.",
            f"{h.n} and {f.n} sat there until the stars came out. Good things take time, and good friends help.",
        )
        return [p2, p3, p4, end]

    def storm(self):
        h, o, f = self.h, self.o, self.f
        fr = self.friend()
        kind = self.pick("storm", "snow", "rain")
        sky, hit = {
            "storm": ("the sky turned dark", "The wind shook the trees, and the thunder was very loud."),
            "snow": ("it began to snow", "Soon the snow was so deep that nobody could see the road."),
            "rain": ("it began to rain", "It rained and rained, and the water came up to the door."),
        }[kind]
        p2 = f"One {self.pick('gray', 'dark', 'cold')} {self.pick('evening', 'afternoon')}, {sky}. {hit} " + self.pick(
            f"{h.n} ran inside and closed the window.",
            f"{h.n} took the {o.n} and ran home.",
            f"{h.n} was a little afraid and held the {o.n} close.",
        )
        p3 = self.pick(
            f"Then there was a knock at the door. It was {fr}.",
            f"Suddenly, {h.n} heard a knock. {cap(fr)} stood at the door.",
            f"Then {h.n} saw {fr} outside in the {kind}. {h.n} opened the door at once.",
        )
        p3 += " " + self.pick(
            f'"My house is cold and wet," said {f.n}. "May I stay with you?"',
            f'"I cannot get home tonight," said {f.n}. "May I come in?"',
        )
        p3 += " " + self.pick(
            f'"Of course," said {h.n}. "There is always room for a friend."',
            f'"Come in," said {h.n}. "You can sit by the fire."',
        )
        p3 += " " + self.pick(
            f"They ate hot soup and looked at the {o.full} by the light of the fire.",
            f"They made a bed from pillows, and {h.n} showed {f.n} the {o.full}.",
            f"They sang songs until they were no longer afraid.",
        )
        p4 = self.pick(
            f"In the morning, the sun came out. The whole world was bright and clean.",
            f"In the morning, everything was quiet. The sky over the {self.place} was blue again.",
            f"The next morning, there was a rainbow over the {self.place}." if kind != "snow" else "The next morning, the white hills shone in the sun.",
        )
        end = self.pick(
            f"{h.n} helped {f.n} to clean the house. By evening, it was warm and dry again.",
            f'"Thank you," said {f.n}. "With a friend, even the {kind} is not so bad."',
            f"{h.n} and {f.n} ran outside to play. The {kind} was soon forgotten.",
        )
        return [p2, p3, p4 + " " + end]

    def journey(self):
        h, o, f, g = self.h, self.o, self.f, self.g
        goal, view = self.pick(
            ("the top of the mountain", "They could see the whole valley, and the clouds were below them."),
            ("the big lighthouse", "They climbed the stairs and saw the ships far away on the sea."),
            ("the end of the rainbow", "They did not find any gold, but they found a meadow full of flowers."),
            ("the great waterfall", "The water sang and shone in all colors."),
            ("Grandmother's house", "Grandmother opened the door and gave everyone a piece of cake."),
            ("the market in the town", "There were red apples, sweet buns and a man who sold toys."),
        )
        fr = self.friend()
        p2 = f"{self.when()}, {h.n} wanted to see {goal}. " + self.pick(
            f"{h.He} packed some bread and the {o.full} and set out with {fr}.",
            f"{h.He} asked {fr} to come along. They took some bread, some cheese and the {o.full}.",
            f"{h.He} took the {o.full} and asked {fr} to come along.",
        )
        p3 = self.pick(
            "They walked over the hills and through the woods.",
            "They walked along the road and over a small bridge.",
            "The road was long, but they sang all the way.",
        )
        p3 += " " + self.pick(
            f"On the way, they met {g.the}, who was hungry. {h.n} shared the bread, and {g.n} showed them a short path.",
            f"On the way, they met {g.the}, who was all alone. \"Come with us,\" said {h.n}, and so they were three.",
            f"At noon, they came to a wide stream. {g.the} showed them where to cross it.",
            f"Soon they did not know which way to go. {g.the} sat on a fence and pointed to the left.",
        )
        p3 += " " + self.pick(
            f'"I am tired," said {f.n}. "Just a little more," said {h.n}.',
            f"When {f.n} was tired, they sat down and looked at the clouds.",
            f"{h.n} was tired, but {h.he} did not give up.",
        )
        p4 = self.pick("At last", "In the evening", "Late in the day", "After many hours") + f", they came to {goal}. {view} " + self.pick(
            f'"How beautiful," said {f.n}.' if "house" not in goal else f'"How good it is to be here," said {f.n}.',
            f"{h.n} was glad that they had come so far.",
            f"{h.n} held up the {o.n} and laughed.",
        )
        end = self.pick(
            f"When they came home to the {self.place}, the moon was in the sky. {h.n} dreamed of new roads all night long.",
            f"On the way home, they told each other stories. A long road is short with a good friend.",
            f"They came home tired and happy. \"Tomorrow we will go again,\" said {h.n}.",
        )
        return [p2, p3, p4, end]

    def share(self):
        h, o, f = self.h, self.o, self.f
        fr = self.friend()
        p2 = f"{self.when()}, {fr} came to play. " + self.pick(
            f'{f.n} asked, "May I try your {o.n}?"',
            f'"What a nice {o.n}," said {f.n}. "May I hold it?"',
        )
        p2 += " " + self.pick(
            f'"No," said {h.n}. "It is mine."',
            f'{h.n} shook {h.his} head. "It is only for me," {h.he} said.',
            f'"You may break it," said {h.n}, and {h.he} hid it behind {h.his} back.',
        )
        p2 += f" {f.n} went away with a sad face."
        p3 = self.pick(
            f"{h.n} played alone. After a while, it was no fun at all.",
            f"{h.n} sat alone with the {o.n}. It was very quiet.",
            f"Now {h.n} had the {o.n} but no friend. {h.He} felt lonely.",
        )
        p3 += " " + self.pick(
            f"So {h.he} went to {f.n}'s house and knocked on the door.",
            f"So {h.he} picked up the {o.n} and ran after {f.n}.",
        )
        p3 += " " + self.pick(
            f'"I am sorry," said {h.n}. "Let us play together."',
            f'"I am sorry," said {h.n}. "You may have the {o.n} first."',
        )
        p4 = self.pick(
            f"{f.n} smiled, and they played with the {o.n} until dinner.",
            f"They took turns all afternoon and laughed a lot.",
            f"{f.n} was very careful with the {o.n}, and nothing broke.",
        )
        end = self.pick(
            f"{h.n} learned that things are more fun when you share them.",
            f"The {o.full} was still nice, but a friend was much nicer.",
            f"In the evening, {f.n} gave {h.n} a sweet bun. Now they shared that, too.",
            f"From that day on, the {o.n} was for both of them.",
        )
        return [p2, p3, p4 + " " + end]

    LEARN = {
        "swim": ("jumped into the water, but {he} sank like a stone", "Kick with your legs and breathe slowly", "swam from one side to the other"),
        "dance": ("turned around and fell over {his} own feet", "Listen to the music and take small steps", "danced like a leaf in the wind"),
        "bake bread": ("forgot the salt, and the bread was hard", "Mix it slowly and give it time", "made bread that smelled wonderful"),
        "paint": ("painted a cow, but it looked like a potato", "Look first and then paint what you see", "painted the sun over the hills"),
        "sing": ("sang so badly that the birds flew away", "Breathe deeply and sing from the heart", "sang a song that made everyone smile"),
        "ride a bicycle": ("rode straight into a hedge", "Look ahead and do not stop", "rode all the way around the barn"),
        "skate": ("slid over the ice and fell into the snow", "Bend your knees and look ahead", "skated in a big round circle"),
        "juggle": ("dropped everything on {his} toes", "Start with one and then take two", "juggled three apples"),
    }

    def learn(self):
        h, o, f = self.h, self.o, self.f
        skill = self.r.choice(list(self.LEARN))
        fail, tip, win = self.LEARN[skill]
        fail = fail.format(he=h.he, his=h.his)
        fr = self.friend()
        p2 = self.pick(
            f"More than anything, {h.n} wanted to learn how to {skill}.",
            f"{self.when()}, {h.n} wanted to learn how to {skill}.",
            f"There was only one problem. {h.n} could not {skill}.",
        )
        p2 += f" {h.He} put the {o.n} aside and tried. " + self.pick(f"First {h.he} {fail}.", f"But {h.he} {fail}.")
        p2 += " " + self.pick(
            f'"I will never learn it," said {h.n}.',
            f"Everyone laughed a little, and {h.n} turned red.",
            f"{h.n} wanted to give up.",
        )
        p3 = self.pick(
            f'{cap(fr)} sat down next to {h.him}. "{tip}," said {f.n}.',
            f'"Nobody can do it the first time," said {fr}. "{tip}."',
            f'Then {fr} came by. "I can teach you," said {f.n}. "{tip}."',
        )
        days = self.pick("The next day", "Every morning", "Day after day")
        p3 += f" {days}, {h.n} tried again. " + self.pick(
            f"It went a little better each time.",
            f"Sometimes it went well, and sometimes it did not.",
            f"{f.n} watched and clapped.",
        )
        p4 = self.pick("At the summer fair", "On the day of the feast", "One fine evening") + f", {h.n} {win}. " + self.pick(
            "Everyone cheered.",
            f"{f.n} cheered the loudest of all.",
            f'"I knew you could do it," said {f.n}.',
        )
        end = self.pick(
            f"{h.n} gave {f.n} the {o.full} to say thank you. They both smiled all the way home.",
            f"{h.n} was proud. You can learn almost anything if you keep trying.",
            f"That night, {h.n} was too happy to sleep. Tomorrow {h.he} would teach somebody else.",
        )
        return [p2, p3, p4 + " " + end]

    def birthday(self):
        h, o, f, g = self.h, self.o, self.f, self.g
        fr = self.friend()
        p2 = self.pick(
            f"The next day was the birthday of {fr}. {h.n} wanted to plan a surprise.",
            f"{self.when()}, {h.n} remembered that it was the birthday of {fr}. There was no time to lose.",
        )
        p2 += " " + self.pick(
            f"But what could {h.he} give to {f.n}?",
            f"But {h.he} had no money for a present.",
        )
        p3 = f"{h.He} asked {g.the}. " if self.chance(0.5) else f"{g.the} had an idea. "
        p3 += self.pick(
            f'"The best gift comes from the heart," said {g.n}.',
            f'"Let us bake a cake," said {g.n}.',
            f'"Give something that you love," said {g.n}.',
        )
        p3 += " " + self.pick(
            f"So they baked a cake with berries and put paper flowers on the table.",
            f"So they picked flowers, hung up lights and made a big cake.",
            f"They worked all day and did not say a word to {f.n}.",
        )
        p3 += f" {h.n} cleaned the {o.full} and tied a ribbon around it."
        p4 = self.pick(
            f'When {f.n} opened the door, everyone shouted, "Happy birthday!"',
            f'In the evening, {f.n} came in. All the friends shouted, "Surprise!"',
        )
        p4 += " " + self.pick(
            f"{f.n} could not believe it. \"The {o.n} is the best present of all,\" said {f.n}.",
            f'{f.n} looked at the {o.n} with big eyes. "Now we can use it together," said {f.n}.',
        )
        end = self.pick(
            f"They ate cake, danced and laughed until the moon came up.",
            f"{h.n} did not miss the {o.n} at all. Giving made {h.him} happier than having.",
            f"It was the best birthday that the {self.place} had ever seen.",
        )
        return [p2, p3, p4, end]

    def mystery(self):
        h, o, f = self.h, self.o, self.f
        sound, cause = self.pick(
            ("a strange tapping", "a little bird that had lost its way. It was tapping at the window to be let in"),
            ("a soft crying", "a baby lamb that could not find its mother"),
            ("a deep humming", "the wind, which was playing in an empty bottle"),
            ("a loud snoring", "an old bear who had fallen asleep behind the house"),
            ("a funny scratching", "a tiny kitten that wanted to come in"),
        )
        fr = self.friend()
        p2 = self.pick("One night", "Late one evening", "One dark night") + f", {h.n} heard {sound}. " + self.pick(
            f"{h.He} sat up in bed and listened.",
            f"{h.He} hid under the pillow, but the sound did not stop.",
        )
        p2 += " " + self.pick(
            f'{h.He} whispered, "What can that be?"',
            f'"It must be a ghost," {h.he} whispered.',
        )
        p3 = self.pick(
            f"{h.n} took the {o.full} and went to wake {fr}.",
            f"{h.n} held the {o.full} tightly and ran to {fr}.",
        )
        p3 += " " + self.pick(
            f'"I hear it, too," said {f.n}. "Let us go and look."',
            f'"I am afraid," said {f.n}. "We will go together," said {h.n}.',
        )
        p3 += " " + self.pick(
            "Step by step, they walked through the dark garden.",
            "Hand in hand, they went out into the moonlight.",
            "Very slowly, they opened the door and looked outside.",
        )
        p4 = self.pick("There it was!", "Then they saw it.", "And what did they find?") + f" It was only {cause}. "
        if "bird" in cause or "lamb" in cause or "kitten" in cause:
            p4 += self.pick(
                f"They gave it some warm milk and a soft place to sleep.",
                f"{h.n} picked it up gently and took it inside.",
            )
        else:
            p4 += self.pick(f"{h.n} and {f.n} laughed until their bellies hurt.", f'"And I was so afraid," said {h.n}, and they both laughed.')
        end = self.pick(
            f"After that night, {h.n} was not afraid of the dark any more.",
            f"Then they went back to bed, and the night was quiet again.",
            f'"Things are not so scary when you look at them," said {f.n}.',
        )
        return [p2, p3, p4, end]

    def garden(self):
        h, o, f, g = self.h, self.o, self.f, self.g
        plant, fruit = self.pick(
            ("sunflower", "It was taller than the house"),
            ("pumpkin", "It was as big as a wagon"),
            ("apple tree", "Its apples were red and sweet"),
            ("rose bush", "It had a hundred red roses"),
            ("strawberry plant", "Its berries were as sweet as sugar"),
        )
        fr = self.friend()
        p2 = f"{self.when('spring')}, {g.the} gave {h.n} a tiny seed. " + self.pick(
            f'"Take good care of it," said {g.n}.',
            f'"Plant it and wait," said {g.n}.',
        )
        p2 += " " + self.pick(
            f"{h.n} planted it next to the path and put the {o.n} beside it, so that nobody would step on it.",
            f"{h.n} made a hole, put the seed in and gave it some water.",
        )
        p3 = self.pick(
            f"Every day, {h.n} looked at the ground. Nothing happened.",
            f"{h.n} waited for one week and then for two. There was nothing to see.",
        )
        p3 += " " + self.pick(
            f'"Maybe it is asleep," said {fr}. "We must wait."',
            f'"It will never grow," {h.he} said. But {fr} told {h.him} to wait.',
        )
        p3 += " " + self.pick(
            f"They told the seed stories and gave it fresh water.",
            f"So they sat by the seed with the {o.full} and waited together.",
        )
        p4 = self.pick("Then, after the rain", "One morning", "At last") + f", a small green leaf came out of the ground. It grew and grew, and by summer it was {a(plant)}. {fruit}. "
        p4 += self.pick(f"{h.n} jumped for joy.", f'"Look," cried {h.n}. "It was only asleep!"')
        end = self.pick(
            f"All the neighbors came to see it, and {h.n} gave a seed to each of them.",
            f"{h.n} and {f.n} sat in its shade and were happy that they had waited.",
            f"Now {h.n} knows that good things need time.",
        )
        return [p2, p3, p4, end]

    def nest(self):
        h, o, f, g = self.h, self.o, self.f, self.g
        fr = self.friend()
        p2 = f"{self.when()}, {h.n} was out with the {o.n} and heard a tiny cry. " + self.pick(
            "A baby bird sat in the grass. It had fallen out of its nest.",
            "Under a tree sat a baby bird. It was too young to fly.",
        )
        p2 += " " + self.pick(
            f'"Do not be afraid," said {h.n}. "I will take you home."',
            f'"Poor little bird," said {h.n}. "Where is your mother?"',
        )
        p3 = self.pick(
            f"{h.n} put the {o.n} down and looked up. The nest was very high.",
            f"The nest was at the very top of the tree. {h.n} could not reach it alone.",
        )
        p3 += " " + self.pick(
            f"So {h.he} called {fr}, who brought a long ladder.",
            f"So {h.he} asked {fr} for help. Together, they pushed a cart under the tree.",
        )
        p3 += " " + self.pick(
            f"{h.n} climbed up, and {f.n} held on tightly. Very gently, {h.n} put the bird back into its nest.",
            f"Step by step, {h.n} climbed higher, with the bird in a warm glove. {f.n} watched and did not move.",
        )
        p4 = self.pick(
            "The mother bird came back and sang the most beautiful song.",
            "Soon the mother came with a worm, and the baby bird ate it happily.",
        )
        end = self.pick(
            f"In the summer, the young bird learned to fly. Every morning, it came to the {self.place} and sang for {h.n}.",
            f"{h.n} picked up the {o.full}, and they walked home. Even small hands can do big things.",
            f"{g.the} heard about it and told everyone. {h.n} only smiled.",
        )
        return [p2, p3, p4 + " " + end]

    def picnic(self):
        h, o, f, g = self.h, self.o, self.f, self.g
        fr = self.friend()
        food = self.pick("cheese and warm bread", "sweet buns and apples", "berry cake and cold milk", "soup and little pies")
        p2 = f"{self.when()}, {h.n} and {fr} wanted to have a picnic. " + self.pick(
            f"{h.n} packed {food}, and of course {h.he} took the {o.full}.",
            f"They packed {food} and set out with the {o.full}.",
        )
        p3 = self.pick("They found a lovely place under a tree.", f"They sat down not far from the {self.place}.") + " "
        p3 += self.pick(
            "But then a gray cloud came, and it began to rain.",
            "But when they opened the bag, most of the food was gone. There was a hole in the bag!",
            "But then a long line of ants came and carried the crumbs away.",
        )
        p3 += " " + self.pick(
            f'"Our picnic is over," said {f.n}. "Wait," said {h.n}. "I know what to do."',
            f'{f.n} was close to tears. "Do not give up," said {h.n}.',
        )
        p4 = self.pick(
            f"They went to {g.the}, who lived close by. {g.n} opened the door and laughed.",
            f"Just then, {g.the} came along. \"You can have your picnic in my kitchen,\" said {g.n}.",
        )
        p4 += " " + self.pick(
            "They put a cloth on the floor and ate everything that was left.",
            "They made pancakes, and every one of them was golden and round.",
        )
        end = self.pick(
            f'"This is even better," said {f.n}. And all three of them laughed.',
            f"{h.n} put the {o.n} in the middle, and they told stories until it was dark.",
            "The best plans are sometimes the ones that go wrong.",
        )
        return [p2, p3, p4, end]

    def star(self):
        h, o, f, g = self.h, self.o, self.f, self.g
        fr = self.friend()
        p2 = self.pick("One clear night", "One warm summer night") + f", {h.n} and {fr} lay in the grass and looked at the sky. " + self.pick(
            f'"Look," cried {f.n}. "A falling star!"',
            "Suddenly, a bright star fell behind the hills.",
        )
        p2 += " " + self.pick(
            f'"Let us find it," said {h.n}, and {h.he} picked up the {o.full}.',
            f'{h.n} took the {o.n} and said, "I want to see where it fell."',
        )
        p3 = self.pick(
            "They ran over the dark fields. The grass was wet and cool.",
            "They walked through the woods, where everything was silver in the moonlight.",
        )
        p3 += " " + self.pick(
            f"They asked {g.the}, who was awake as well. \"I saw a light down there,\" said {g.n}.",
            f"Sometimes {f.n} was afraid, but {h.n} held {f.his} hand.",
        )
        p4 = self.pick(
            "Behind the hill, they stopped and stared. There was no star, but a hundred fireflies danced in the air.",
            "At last, they came to still water. The whole sky was in it, with all its stars.",
        )
        p4 += " " + self.pick(
            f'"It is more beautiful than a star," said {f.n}.',
            f"They sat down and made a wish. {h.n} wished that they would always be friends.",
        )
        end = self.pick(
            f"It was late when they came home to the {self.place}. {h.n} fell asleep with the {o.n} in {h.his} arms.",
            f"They never found the star. But they never forgot that night.",
            f"From then on, they went out to look at the sky every summer.",
        )
        return [p2, p3, p4, end]

    ARCS = {
        "nest": ("a baby bird", "a little bird"),
        "picnic": ("a picnic", "a picnic with friends"),
        "star": ("a star", "the night sky", "a falling star"),
        "lost": ("a lost {o}", "finding a lost {o}"),
        "help": ("helping a friend", "a friend who needs help", "a kind {h}"),
        "build": ("building something", "friends who build something"),
        "storm": ("a storm", "the weather", "a cold night"),
        "journey": ("a journey", "a long walk", "an adventure"),
        "share": ("sharing", "a {h} who does not want to share"),
        "learn": ("learning something new", "a {h} who does not give up"),
        "birthday": ("a birthday", "a surprise", "a birthday party"),
        "mystery": ("a strange sound", "the night", "a mystery"),
        "garden": ("a seed", "a garden", "a plant that grows"),
    }
    WEIGHTS = {"lost": 3, "help": 3}

    def ask(self, arc):
        h, o = self.h, self.o
        topic = self.pick(
            a(h.kind),
            a(f"{h.trait} {h.kind}"),
            f"{a(h.kind)} and {a(o.n)}",
            f"{a(h.kind)} with {a(o.n)}",
            f"{a(h.kind)} and {h.his} {o.full}",
            f"{a(h.kind)} {self.at}",
            h.the,
            None,
            None,
            *(t.replace("a {h}", a(h.kind)).format(o=o.n, h=h.kind) for t in self.ARCS[arc]),
        )
        verb = self.pick("Tell me", "Tell me", "Please tell me", "Write", "Can you tell me", "Write me", "Tell us")
        kind = self.pick("a story", "a story", "a short story", "a bedtime story", "a little story")
        text = f"{verb} {kind}" + (f" about {topic}" if topic else "")
        if self.chance(0.1):
            text = cap(self.pick(f"{kind} about {topic}" if topic else kind, topic or "a story"))
        if self.chance(0.6):
            text += "?" if text.startswith("Can") else self.pick(".", ".", ".", ":", "!")
        return text

    def noise(self):
        """Text that is no story: the model must find its way from it to one."""
        r = self.r
        if r.random() < 0.15:
            words = [r.choice(self.vocabulary) for _ in range(r.randint(1, 5))]
            return (cap(" ".join(words)) + r.choice([". ", " ", ", ", "! "])) * r.randint(2, 40)
        kinds = r.random()
        if kinds < 0.35:
            n = r.randint(1, 40)
            return "".join(chr(r.randint(33, 126)) if r.random() < 0.85 else " " for _ in range(n))
        if kinds < 0.55:
            lo, hi = r.choice([(0x4E00, 0x9FA5), (0x1F300, 0x1F64F), (0x400, 0x45F), (0xC0, 0x17F), (0x3041, 0x30FE)])
            return "".join(chr(r.randint(lo, hi)) for _ in range(r.randint(1, 12)))
        n = r.randint(1, 25) if r.random() < 0.8 else r.randint(25, 120)
        words = [r.choice(self.vocabulary) if r.random() < 0.5 else self.pseudo_word() for _ in range(n)]
        return cap(" ".join(words)) + r.choice([".", "?", "!", ":", ""])

    vocabulary = ["the"]

    def pseudo_word(self):
        parts = "ta con ver ment is qua pro li sys tem or ex plu ca ti on al gra zu the ny bra fo des cri".split()
        return "".join(self.r.choice(parts) for _ in range(self.r.randint(1, 4)))

    def story(self):
        self.cast()
        arcs = list(self.ARCS)
        arc = self.r.choices(arcs, [self.WEIGHTS.get(x, 1.4) for x in arcs])[0]
        first = self.opening()
        rest = getattr(self, arc)()
        if self.chance(0.3):
            first, rest = first + " " + rest[0], rest[1:]
        text = "\n\n".join(sentences(p) for p in [first, *rest])
        roll = self.r.random()
        if roll < 0.32:
            # The request is context only; the model learns to answer it, not to go on with it.
            lead = self.ask(arc) if roll < 0.22 else self.noise()
            gap = self.pick("\n\n", "\n\n", "\n\n", " ")
            if self.chance(0.25):
                lead, gap = lead + gap, ""
            return {"text": lead + gap + text, "skip": len(lead)}
        return {"text": text, "skip": 0}


def words_of(text):
    return re.findall(r"[a-z]+(?:'[a-z]+)*", text.lower())


def main():
    here = pathlib.Path(__file__).parent
    p = argparse.ArgumentParser()
    p.add_argument("--out", type=pathlib.Path, default=here / "build")
    p.add_argument("--data", type=pathlib.Path, default=here)
    p.add_argument("--stories", type=int, default=30000)
    p.add_argument("--seed", type=int, default=7)
    args = p.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)

    teller = Teller(random.Random(args.seed))
    # Noise is made of corpus words, so a first pass has to collect them.
    scout = Teller(random.Random(args.seed + 1))
    seen = set()
    for _ in range(3000):
        doc = scout.story()
        seen.update(words_of(doc["text"][doc["skip"] :]))
    teller.vocabulary = sorted(seen)

    words = set()
    with open(args.out / "corpus.jsonl", "w", encoding="utf-8", newline="\n") as out:
        for _ in range(args.stories):
            doc = teller.story()
            words.update(words_of(doc["text"][doc["skip"] :]))
            out.write(json.dumps(doc, ensure_ascii=False) + "\n")
    (args.data / "words.txt").write_text("\n".join(sorted(words)) + "\n", encoding="utf-8")

    prompter = Teller(random.Random(args.seed + 2))
    prompts, used = [], set()
    while len(prompts) < HELD_OUT_PROMPTS:
        prompter.cast(want_held_out=True)
        triple = (prompter.h.kind, prompter.place, prompter.o.n)
        if triple in used:
            continue
        used.add(triple)
        prompts.append(
            {
                "prompt": prompter.opening(full=True),
                "name": prompter.h.n,
                "character": triple[0],
                "place": triple[1],
                "object": triple[2],
            }
        )
    (args.data / "held-out.json").write_text(json.dumps(prompts, indent=2) + "\n", encoding="utf-8")
    print(f"{args.stories} stories, {len(words)} words, {len(prompts)} held-out prompts")


if __name__ == "__main__":
    main()
