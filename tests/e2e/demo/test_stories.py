"""One story per tab: somebody does something, sees the right answer, does something wrong and reads why."""

import datetime as dt
import json
from functools import partial
from io import BytesIO
from typing import Any

import numpy as np
import pytest
from PIL import Image
from playwright.sync_api import Page, Route

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(120)]


def table_of(views: list[Any], first: str = "2026-03-02") -> str:
    """Days and their views as a table, from a Monday on."""
    begin = dt.date.fromisoformat(first)
    return "\n".join(["date,views", *(f"{begin + dt.timedelta(day)},{one}" for day, one in enumerate(views))])


def percent(scores: list[float]) -> list[str]:
    """As the page writes shares."""
    return [f"{100 * score:.1f} %" for score in scores]


def paint(page: Page, selector: str) -> str:
    """Return the colour of an element's line."""
    found: str = page.eval_on_selector(selector, "element => getComputedStyle(element).stroke")
    return found


VIEWS = [1000 + 150 * (day % 7) + 9 * day for day in range(63)]


def test_view_count(visit: Any, demo: Any) -> None:
    """A dropped table is drawn, past red and forecast blue with days below, and the numbers are the service's."""
    page = visit.open("viewcount")
    visit.act("viewcount", lambda: visit.drop("#viewcount form", "v.csv", "text/csv", table_of(VIEWS).encode()))
    (expected,) = demo.predict("viewcount", {"views": VIEWS, "horizon": 14})
    page.click("text=The numbers")
    rows = visit.table("#forecast-table")
    assert [row[1] for row in rows] == [f"{views:,.0f}" for views in expected["forecast"]]
    assert [row[2] for row in rows] == [
        f"{low:,.0f} to {high:,.0f}" for low, high in zip(expected["lower"], expected["upper"], strict=True)
    ]
    assert rows[0][0] == "Monday, 4 May 2026"
    assert (paint(page, "#chart path.past"), paint(page, "#chart path.forecast")) == (
        "rgb(197, 34, 31)",
        "rgb(29, 78, 216)",
    )
    assert page.locator("#chart path.band").count() == 1
    assert "3 May" in page.eval_on_selector_all("#chart .tick text", "ticks => ticks.map(tick => tick.textContent)")
    visit.act("viewcount", lambda: page.fill("#horizon", "28"))
    assert len(visit.table("#forecast-table")) == 28
    visit.picture("viewcount")


WRONG_TABLES = [
    ("", "The table is empty."),
    (table_of([1, 2, 3]), "The table, with 3 days: at least 56 are needed."),
    (table_of([*VIEWS, "many"]), "Line 65, Monday, 4 May 2026: “many” is not a number of views."),
    (table_of([*VIEWS, 2.5]), "Line 65, Monday, 4 May 2026: expected a whole number of views, found 2.5."),
    (table_of([*VIEWS, -1]), "Line 65, Monday, 4 May 2026: the smallest allowed number is 0.0."),
    (table_of(VIEWS).replace("2026-03-09,", "2026-03-10,"), "Line 9: after 2026-03-08 the day 2026-03-09 is"),
    (table_of(VIEWS).replace("2026-03-09,", "9.3.2026,"), "Line 9: “9.3.2026” is not a day"),
    ("date,clicks\n2026-03-02,1", "there is no column “views”"),
    ("Datum;Aufrufe\n2026-03-02;1", "Line 1: there is no column “date” among “Datum”, “Aufrufe”."),
    ("date,views,views\n2026-03-02,1,2", "Line 1: there are several columns “views”; leave one."),
    (table_of([*VIEWS, "2,305"]), "Line 65 has 3 cells, the first line has 2. A number is written without separators"),
    (table_of([*VIEWS, '"2,305"']), "“2,305” is not a number of views. Write it without separators: 2305."),
    (table_of([*VIEWS, '"12']), "opens a quotation mark that is never closed"),
    (
        table_of(VIEWS) + "\nTotal,81234",
        "Line 65: “Total” is not a day; write it as 2024-01-31. Take the line of the total",
    ),
]
# As spreadsheets and reports write it; each means the same.
FORMS = {
    "semicolons": lambda table: table.replace(",", ";"),
    "tabs": lambda table: table.replace(",", "\t"),
    "sep": lambda table: "sep=;\r\n" + table.replace(",", ";"),
    "names": lambda table: table.replace("date,views", "Date,Views"),
    "more columns": lambda table: "\n".join(
        f"{line},{'likes' if line.startswith('date') else 7}" for line in table.split("\n")
    ),
    "quotes": lambda table: "\n".join(",".join(f'"{cell}"' for cell in line.split(",")) for line in table.split("\n")),
    "compact days": lambda table: table.replace("-", ""),
    "slashes": lambda table: table.replace("-", "/"),
}


def test_wrong_tables(visit: Any) -> None:
    """Whatever is wrong with a table is told in a sentence with its line and its day."""
    page = visit.open("viewcount")
    for table, told in WRONG_TABLES:
        assert told in visit.blunder("viewcount", lambda table=table: page.fill("#views", table))
        assert not page.is_visible("#chart")


@pytest.mark.parametrize("form", FORMS)
def test_ordinary_tables(visit: Any, demo: Any, form: str) -> None:
    """A table as a spreadsheet writes it means what the plain one means."""
    page = visit.open("viewcount")
    (expected,) = demo.predict("viewcount", {"views": VIEWS, "horizon": 14})
    visit.act("viewcount", lambda: page.fill("#views", FORMS[form](table_of(VIEWS))))
    assert [row[1] for row in visit.table("#forecast-table")] == [f"{views:,.0f}" for views in expected["forecast"]]


def test_files_of_tables(visit: Any) -> None:
    """A spreadsheet's UTF-16 is read; a file that is no text is explained; one dropped elsewhere does nothing."""
    page = visit.open("viewcount")
    utf16 = table_of(VIEWS).encode("utf-16")
    visit.act("viewcount", lambda: visit.drop("#viewcount form", "v.txt", "text/plain", utf16))
    assert page.input_value("#views") == table_of(VIEWS)
    told = visit.blunder("viewcount", lambda: visit.drop("#viewcount form", "v.xlsx", "", b"PK\x03\x04\0\0"))
    assert told == "“v.xlsx” is not a text file. Save the table as CSV, and open that."
    visit.drop("body", "v.csv", "text/csv", b"date,views")
    assert page.url.endswith("/demo/#/viewcount")


def test_tagging(visit: Any, demo: Any) -> None:
    """A typed sentence gets its tags, each in its colour, and a word tells what it looked at by the chosen head."""
    page = visit.open("tagging")
    sentence = "They can fish near the bank, can't they?"
    visit.act("tagging", lambda: page.fill("#sentence", sentence))
    (expected,) = demo.predict("tagging", {"text": sentence}, explain=True)
    words = page.eval_on_selector_all(
        "#words button", "all => all.map(one => [...one.children].map(c => c.textContent))"
    )
    assert words == [list(pair) for pair in zip(expected["tokens"], expected["tags"], strict=True)]
    colours = page.eval_on_selector_all("#words button", "all => all.map(one => getComputedStyle(one).backgroundColor)")
    assert len(set(colours)) == len(set(expected["tags"]))
    page.click("#heads label:has(input[value='2.3'])")
    page.click("#words li:nth-child(3) button")
    weights = expected["attention"][1][2][2]
    best = int(np.argmax(weights))
    told = f"Layer 2, head 3: “fish” looked at “{expected['tokens'][best]}” {100 * weights[best]:.0f} %"
    assert page.inner_text("#attention-readout").startswith(told)
    assert page.locator("#heads canvas").count() == 16
    visit.picture("tagging")
    assert "Type a sentence" in visit.blunder("tagging", lambda: page.fill("#sentence", "  "))
    told = visit.blunder("tagging", lambda: page.fill("#sentence", "a bell \x07 rings"))
    assert told == "The sentence: expected no control characters, found U+0007 at position 7."
    told = visit.blunder("tagging", lambda: page.fill("#sentence", "word " * 600))
    assert told == "The sentence: expected at most 512 words, found more."


def overlay(page: Page) -> np.ndarray[Any, Any]:
    """Return how much of each patch is covered, ``(7, 7)``."""
    script = """canvas => {
        const side = canvas.width / 7, pen = canvas.getContext('2d');
        const at = place => Math.floor((place + 0.5) * side);
        return [...Array(49).keys()].map(one => pen.getImageData(at(one % 7), at(Math.floor(one / 7)), 1, 1).data[3]);
    }"""
    return np.array(page.eval_on_selector("#overlay", script)).reshape(7, 7)


def draw(page: Page, *strokes: tuple[tuple[float, float], tuple[float, float]]) -> None:
    """Lines with the mouse, in parts of the board."""
    box = page.locator("#sketch").bounding_box()
    assert box is not None
    for start, end in strokes:
        page.mouse.move(box["x"] + start[0] * box["width"], box["y"] + start[1] * box["height"])
        page.mouse.down()
        page.mouse.move(box["x"] + end[0] * box["width"], box["y"] + end[1] * box["height"], steps=6)
        page.mouse.up()


def test_image(visit: Any, demo: Any) -> None:
    """A drawing and a dropped file are answered as by the service; image-vit's attention lies on the picture."""
    page = visit.open("image")
    classes = demo.page("/v1/models/image/assets")["classes"]
    page.click("#clear-sketch")
    page.select_option("#brush-width", "3")
    visit.act("image", lambda: draw(page, ((0.35, 0.2), (0.35, 0.9)), ((0.65, 0.2), (0.65, 0.9))))
    visit.settle("image")
    drawn = page.evaluate("() => document.querySelector('#sketch').toDataURL('image/png').split(',')[1]")
    (expected,) = demo.predict("image", {"image": drawn})
    page.wait_for_function(
        "label => document.querySelector('#classes .best span').textContent === label", arg=expected["label"]
    )
    assert visit.bars("#classes") == dict(zip(classes, percent(expected["scores"]), strict=True))
    assert expected["label"] == "Trouser"
    visit.act("image", lambda: page.select_option("#image .model", "image-vit"))
    (expected,) = demo.predict("image-vit", {"image": drawn}, explain=True)
    assert visit.bars("#classes") == dict(zip(classes, percent(expected["scores"]), strict=True))
    weights = np.mean(expected["attention"], axis=0).reshape(7, 7)
    veil = 255 * 0.9 * np.maximum(0, 1 + np.log(weights) / np.log(49))
    assert np.allclose(overlay(page), veil, atol=1.5)
    visit.picture("image")
    assert overlay(page)[np.unravel_index(weights.argmax(), (7, 7))] > 40
    visit.act("image", lambda: page.select_option("#image .model", "image"))
    file = BytesIO()
    Image.fromarray(np.tile(np.arange(0, 250, 5, dtype=np.uint8), (40, 1))).save(file, "PNG")
    visit.act("image", lambda: visit.drop("#image form", "ramp.png", "image/png", file.getvalue()))
    expected = demo.post("image", file.getvalue(), content_type="image/png").json()["predictions"][0]
    assert visit.bars("#classes") == dict(zip(classes, percent(expected["scores"]), strict=True))
    told = visit.blunder("image", lambda: visit.drop("#image form", "notes.png", "image/png", b"not a picture"))
    assert told == "The file “notes.png”: expected a PNG, JPEG or WebP file."
    told = visit.blunder("image", lambda: visit.drop("#image form", "notes.pdf", "application/pdf", b"%PDF"))
    assert told.startswith("The model does not read files of this kind; it reads PNG, JPEG and WebP.")


def test_an_empty_board_is_nothing(visit: Any) -> None:
    """A cleared board is not asked about, and a file of one colour comes with a warning."""
    page = visit.open("image")
    told = visit.blunder("image", lambda: page.click("#clear-sketch"))
    assert told == "There is nothing on the board yet. Draw on it, or choose a sample."
    for grey, is_warned in (([90] * 1600, True), ([90] * 800 + [200] * 800, False)):
        file = BytesIO()
        Image.fromarray(np.array(grey, np.uint8).reshape(40, 40)).save(file, "PNG")
        visit.act("image", lambda file=file: visit.drop("#image form", "one.png", "image/png", file.getvalue()))
        assert page.is_visible("#image .cautions") is is_warned


BONDS = [[0, 1], [1, 2], [2, 3], [3, 4], [4, 5], [5, 0], [5, 6], [6, 7], [6, 8]]


def emphasis(weight: float, count: int) -> float:
    """Return how far a weight is above the even share: 0 there, 1 where it is all."""
    return max(0.0, 1 + float(np.log(weight) / np.log(count)))


def test_molecule(visit: Any, demo: Any) -> None:
    """A picked molecule gets its label and its bonds their colours; one more atom is another molecule."""
    page = visit.open("molecule")
    (expected,) = demo.predict("molecule", {"atoms": [*"CCCCCCNOO"], "bonds": BONDS}, explain=True)
    assert [*visit.bars("#molecule-classes").values()] == percent(expected["scores"])
    edges = {tuple(edge): position for position, edge in enumerate(expected["attention"]["edges"])}
    last = np.mean(expected["attention"]["weights"][8:], axis=0)
    into = np.bincount([to for _, to in edges])
    shares = [np.mean([emphasis(last[edges[a, b]], into[b]) for a, b in ((u, v), (v, u))]) for u, v in BONDS]
    widths = page.eval_on_selector_all(".bond", "all => all.map(one => parseFloat(one.style.strokeWidth))")
    assert np.allclose(widths, [3 + 7 * share for share in shares], atol=0.01)
    assert len({paint(page, f".bond-group[data-number='{bond}'] .bond") for bond in range(9)}) > 2
    page.click(".atom[data-number='2']")
    page.check("#elements input[value=Cl]", force=True)
    visit.act("molecule", lambda: page.click("#add-atom"))
    (expected,) = demo.predict("molecule", {"atoms": [*"CCCCCCNOO", "Cl"], "bonds": [*BONDS, [2, 9]]})
    assert [*visit.bars("#molecule-classes").values()] == percent(expected["scores"])
    visit.picture("molecule")
    told = visit.blunder("molecule", lambda: page.fill("#atoms", "C Xx O"))
    assert "Atom 1, “Xx”: expected one of C, N, O, F, I, Cl, Br." in told
    assert page.locator(".atom.wrong[data-number='1']").count() == 1
    page.fill("#atoms", "C C")
    assert visit.blunder("molecule", lambda: page.fill("#bonds", "0-5")) == (
        "Bond 0-5: expected node numbers below 2, found 5."
    )
    assert "“0+1” is not a bond" in visit.blunder("molecule", lambda: page.fill("#bonds", "0+1"))
    assert "no atom yet" in visit.blunder("molecule", lambda: page.click("#clear-molecule"))
    visit.act("molecule", lambda: page.click("#molecule-board", position={"x": 60, "y": 60}))
    assert page.input_value("#atoms") == "Cl"


def test_impossible_molecules_are_warned_of(visit: Any) -> None:
    """A carbon with six bonds gets its label and a warning that names it; ammonium's nitrogen does not."""
    page = visit.open("molecule")
    page.fill("#atoms", "C C C C C C C")
    visit.act("molecule", lambda: page.fill("#bonds", "0-1 0-2 0-3 0-4 0-5 0-6"))
    assert page.inner_text("#molecule .cautions").startswith("Atom 0, C, has 6 bonds; C has 4 at most.")
    page.fill("#atoms", "N C C C C")
    visit.act("molecule", lambda: page.fill("#bonds", "0-1 0-2 0-3 0-4"))
    assert not page.is_visible("#molecule .cautions")


def make_even(answer: Any) -> Any:
    """Return the answer with attention that is spread evenly."""
    attention = answer["predictions"][0]["attention"]
    size = len(answer["predictions"][0]["tokens"])
    answer["predictions"][0]["attention"] = [[[[1 / size] * size] * size for _ in heads] for heads in attention]
    return answer


def test_even_attention_is_pale(visit: Any) -> None:
    """A head that looks everywhere alike has the colour of nothing; the real one has not."""
    page = visit.open("tagging")
    reddest = """() => {
        const canvas = document.querySelector('#attention-map canvas');
        const { data } = canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height);
        return Math.max(...[...Array(data.length / 4).keys()].map(at => data[4 * at] - data[4 * at + 1]));
    }"""
    assert page.evaluate(reddest) > 40
    page.route("**/predict", lambda route: route.fulfill(json=make_even(route.fetch().json())))
    visit.act("tagging", lambda: page.fill("#sentence", "I saw a saw"))
    assert page.evaluate(reddest) <= 1


def test_the_most_cited_paper_answers(visit: Any, demo: Any) -> None:
    """A paper whose neighbourhood is too large to explain gets its field without attention, and the page says so."""
    page = visit.open("citation")
    visit.act("citation", lambda: page.fill("#paper", "1358"))
    page.wait_for_selector("#citation .cautions >> text=too large to explain")
    (expected,) = demo.predict("citation", {"node_ids": [1358]})
    assert [*visit.bars("#fields").values()] == percent(expected["scores"][0])
    assert '"explain"' not in page.inner_text("#citation .request pre")
    visit.picture("citation-1358")


def test_citation(visit: Any, demo: Any) -> None:
    """A clicked paper is asked about next, with its neighbours, and the table says whom it listened to."""
    page = visit.open("citation")
    assets = demo.page("/v1/models/citation/assets")
    visit.act("citation", lambda: page.fill("#paper", "33"))
    near = {v if u == 33 else u for u, v in assets["links"] if 33 in (u, v)}
    assert {int(one) for one in page.eval_on_selector_all(".node", "all => all.map(one => one.dataset.paper)")} == {
        33,
        *near,
    }
    chosen = min(near)
    visit.act("citation", lambda: page.click(f".node[data-paper='{chosen}']"))
    assert page.input_value("#paper") == str(chosen)
    (expected,) = demo.predict("citation", {"node_ids": [chosen]}, explain=True)
    assert [*visit.bars("#fields").values()] == percent(expected["scores"][0])
    weights = {
        edge[0]: row
        for edge, row in zip(expected["attention"]["edges"], expected["attention"]["weights"][8], strict=True)
    }
    rows = {name: share for name, _, share in visit.table("#neighbour-table")}
    assert rows == {
        "itself" if paper == chosen else f"paper {paper}": f"{100 * weight:.1f} %" for paper, weight in weights.items()
    }
    visit.picture("citation")
    told = visit.blunder("citation", lambda: page.fill("#paper", "99999"))
    assert told == "Paper 99999: expected node ids below 2708, found 99999."
    assert "is not a paper's number" in visit.blunder("citation", lambda: page.fill("#paper", "seven"))


def test_status(visit: Any, demo: Any) -> None:
    """The corner names every model with version, score and certificate, and counts what is asked."""
    page = visit.open("viewcount")
    for model in demo.page("/v1/models")["models"]:
        box = page.locator(f".one[data-model='{model['name']}']")
        assert model["version"] in box.inner_text()
        assert model["digest"][:12] in box.inner_text()
        test = model["score"]["test"]
        assert (f"{test:,.0f}" if test > 100 else f"{test:.2f}".rstrip("0")) in box.inner_text()
    page.click(".one[data-model=image] summary")
    page.wait_for_selector(".one[data-model=image] dl >> text=same bits")
    for _ in range(40):
        demo.predict("viewcount", {"views": VIEWS})
    page.wait_for_function("() => parseFloat(document.querySelector('.one[data-model=viewcount] b').textContent) > 1")
    assert page.inner_text(".one[data-model=viewcount] .figures").endswith("ms")


PROBLEMS = [
    (
        429,
        {"code": "rate_limited"},
        {"retry-after": "3"},
        "You ask faster than this service allows. Try again in 3 seconds.",
    ),
    (503, {"code": "draining"}, {}, "The service is stopping. It answers again after its next start."),
    (
        503,
        {"code": "overloaded"},
        {"retry-after": "1"},
        "The service has more to do than it can. Try again in one second.",
    ),
    (400, {"code": "new_code", "error": "no such thing"}, {}, "The service says: no such thing."),
    (502, "<h1>Bad gateway</h1>", {}, "The answer was 502."),
]


def refuse(route: Route, **answer: Any) -> None:
    """Answer in the service's place."""
    route.fulfill(**answer)


def test_refusals(visit: Any) -> None:
    """What the service, or somebody before it, refuses is told in a sentence."""
    page = visit.open("tagging")
    for status, body, headers, told in PROBLEMS:
        text = body if isinstance(body, str) else json.dumps({"status": status, "errors": [], **body})
        page.route("**/predict", partial(refuse, status=status, body=text, headers=headers))
        assert visit.blunder("tagging", partial(page.fill, "#sentence", f"Told {status}, {told}")) == told
        page.unroute("**/predict")


def test_another_version(visit: Any, demo: Any) -> None:
    """When an answer comes from another version than before, the page names it and looks at the models anew."""
    page = visit.open("viewcount")
    answer = demo.post("viewcount", {"instances": [{"views": VIEWS}]}).json()
    page.route("**/predict", lambda route: route.fulfill(json={**answer, "model": "viewcount:9.9.9"}))
    with page.expect_response(lambda one: one.url.endswith("/v1/models")):
        visit.act("viewcount", lambda: page.fill("#horizon", "7"))
    assert page.inner_text("#viewcount .model") == "viewcount 9.9.9"
