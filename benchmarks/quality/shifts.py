"""Requests that do not look like the training data, and test requests that do."""

from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from typing import Any

import numpy as np

from models.graph.citation_schema import Assets as PaperAssets
from models.graph.citation_schema import Instance as Papers
from models.graph.citation_schema import NewPaper
from models.graph.molecule_schema import Instance as Molecule
from models.image.schema import Instance as Picture
from models.tagging.schema import Instance as Sentence
from models.training.datasets import Data
from models.viewcount.schema import Instance as Channel

# Our own, about what one writes on the web; there is no French treebank among the data.
FRENCH = """\
Je ne sais pas encore si je viendrai demain, mais je te préviendrai avant midi.
Le nouveau restaurant du quartier est excellent, surtout pour le prix.
Nous avons attendu plus d'une heure avant que quelqu'un ne vienne nous servir.
Est-ce que tu as reçu le message que je t'ai envoyé hier soir ?
Les enfants jouaient dans le jardin pendant que leur mère lisait le journal.
Merci beaucoup pour votre réponse rapide et très utile.
La réunion a été reportée à la semaine prochaine à cause de la grève.
Il faudrait changer les pneus de la voiture avant l'hiver.
Je vous prie d'agréer, Madame, Monsieur, mes salutations distinguées.
Le gouvernement a annoncé hier de nouvelles mesures pour l'emploi.
Quelle belle journée pour se promener au bord de la mer !
Mon ordinateur ne démarre plus depuis la dernière mise à jour.
On m'a dit que ce film était ennuyeux, pourtant je l'ai adoré.
Elle travaille depuis dix ans dans la même entreprise à Lyon.
Pouvez-vous me dire où se trouve la gare la plus proche ?
Les résultats de l'élection seront connus dimanche soir.
J'ai oublié mes clés chez ma sœur, je dois y retourner.
Ce livre raconte l'histoire d'une famille de paysans au siècle dernier.
Le chat dort toujours sur le canapé du salon.
N'hésitez pas à nous appeler si vous avez la moindre question.
Les prix de l'immobilier ont encore augmenté de cinq pour cent.
Il pleuvait tellement que nous sommes restés à la maison tout le week-end.
Votre commande sera livrée entre huit heures et midi.
Je trouve que le service s'est beaucoup dégradé ces derniers mois.
Combien coûte un billet aller-retour pour Marseille ?
Nous avons choisi une chambre avec vue sur le lac.
Son discours n'a convaincu personne dans la salle.
Le médecin lui a conseillé de se reposer quelques jours.
Quand j'étais petit, nous passions toutes nos vacances chez mes grands-parents.
Les ouvriers ont repris le travail lundi matin.
Ajoutez le beurre fondu, puis mélangez doucement jusqu'à obtenir une pâte lisse.
Cette décision pourrait avoir de graves conséquences pour la région.
Tu devrais goûter la tarte aux pommes de ma tante.
L'équipe a perdu son dernier match, mais elle reste en tête du championnat.
Je cherche un appartement de deux pièces près du centre-ville.
Le train de sept heures est supprimé, il faut prendre le suivant.
Ils se sont mariés l'été dernier dans un petit village de Provence.
Attention, le sol est glissant après la pluie.
Les chercheurs ont découvert une nouvelle espèce de papillon.
Bonjour, je voudrais réserver une table pour quatre personnes.
"""
DENSER = 3
Instances = list[Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Shift:
    """A set of requests.

    Attributes:
        title: What they are.
        make: From the instances of a split, the data and a generator.
        is_usual: Whether nothing but the form of the request is another.
    """

    title: str
    make: Callable[[Instances, Data, np.random.Generator], Instances]
    is_usual: bool = False


def _larger(instances: Instances, data: Data, rng: np.random.Generator) -> Instances:
    return [Channel(views=[3 * views for views in one.views], horizon=one.horizon) for one in instances]


def _french(instances: Instances, data: Data, rng: np.random.Generator) -> Instances:
    return [Sentence(text=line) for line in FRENCH.splitlines()]


def _turned(instances: Instances, data: Data, rng: np.random.Generator) -> Instances:
    return [Picture(pixels=np.rot90(np.asarray(one.pixels)).tolist()) for one in instances]


def _inverted(instances: Instances, data: Data, rng: np.random.Generator) -> Instances:
    return [Picture(pixels=(255 - np.asarray(one.pixels)).tolist()) for one in instances]


def _as_new(more: int) -> Callable[[Instances, Data, np.random.Generator], Instances]:
    def make(instances: Instances, data: Data, rng: np.random.Generator) -> Instances:
        assets = data.assets
        assert isinstance(assets, PaperAssets)
        starts, sources = assets.neighbours
        papers = []
        for (node,) in (one.node_ids for one in instances):
            cites = [other for other in sources[starts[node] : starts[node + 1]].tolist() if other != node]
            cites += rng.integers(0, len(assets.papers), (more - 1) * len(cites)).tolist()
            papers.append(Papers(new=[NewPaper(words=assets.papers[node], cites=sorted({*cites}))]))
        return papers

    return make


def _denser(instances: Instances, data: Data, rng: np.random.Generator) -> Instances:
    """As many bonds again between random atoms."""
    found = []
    for one in instances:
        more = rng.integers(0, len(one.atoms), (len(one.bonds), 2)).tolist()
        found.append(Molecule(atoms=one.atoms, bonds=[*one.bonds, *((int(u), int(v)) for u, v in more)]))
    return found


SHIFTS: dict[str, tuple[Shift, ...]] = {
    "viewcount": (Shift(title="another year's views (the test year), scaled ×3", make=_larger),),
    "tagging": (Shift(title="40 French sentences of our own", make=_french),),
    "image": (
        Shift(title="turned by 90°", make=_turned),
        Shift(title="inverted", make=_inverted),
    ),
    "image-vit": (
        Shift(title="turned by 90°", make=_turned),
        Shift(title="inverted", make=_inverted),
    ),
    "citation": (
        Shift(title=f"links ×{DENSER}, to random papers, as new papers", make=_as_new(DENSER)),
        Shift(title="control: the same papers and links, as new papers", make=_as_new(1), is_usual=True),
    ),
    "molecule": (Shift(title="as many bonds again, between random atoms", make=_denser),),
}
LOADERS = {
    "viewcount": ("models.viewcount.train.data", "load"),
    "tagging": ("models.tagging.train.data", "load"),
    "image": ("models.image.train.data", "load"),
    "image-vit": ("models.image.train.data", "load"),
    "citation": ("models.graph.train.citation_data", "load_citation"),
    "molecule": ("models.graph.train.molecule_data", "load_molecules"),
}


def load(model: str) -> Data:
    """Return the public data that a shipped model was trained on."""
    module, name = LOADERS[model]
    data: Data = getattr(import_module(module), name)()
    return data
