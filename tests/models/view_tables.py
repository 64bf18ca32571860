"""Daily views in files as YouTube Studio, Google Analytics, Wikimedia and spreadsheets write them, made by code."""

import io
import json
import zipfile
from collections.abc import Callable, Mapping
from datetime import date, timedelta

FIRST = date(2024, 1, 1)


def days(count: int) -> list[date]:
    return [FIRST + timedelta(days=day) for day in range(count)]


def views(count: int) -> list[int]:
    """Thousands of views with a week in them, growing."""
    return [1200 + 3 * day + 250 * (day % 7 < 5) for day in range(count)]


def joined(rows: list[str], end: str = "\n") -> str:
    return end.join(rows) + end


def youtube_totals(count: int) -> bytes:
    rows = [f"{day},{seen}" for day, seen in zip(days(count), views(count), strict=True)]
    return joined(["Date,Views", *rows]).encode()


def youtube_table(count: int) -> bytes:
    """Table data.csv by date: a row of totals first, more columns, months by name in quotes."""
    header = "Date,Views,Watch time (hours),Subscribers,Impressions,Impressions click-through rate (%)"
    rows = [
        f'"{day:%b} {day.day}, {day.year}",{seen},{seen / 30:.4f},{seen // 90},{9 * seen},4.12'
        for day, seen in zip(days(count), views(count), strict=True)
    ]
    return joined([header, f"Total,{sum(views(count))},99.5,4,9,4.12", *rows]).encode()


def youtube_zip(count: int) -> bytes:
    """Return what the export button downloads: two videos by day, the videos, and the channel by day."""
    chart = ["Date,Content,Video title,Video publish time,Views"]
    for day, seen in zip(days(count), views(count), strict=True):
        chart += [f'{day},{video},"One, two","Jan 1, 2024",{part}' for video, part in (("aB3", seen - 5), ("-xY", 5))]
    table = ["Content,Video title,Video publish time,Views", f"Total,,,{sum(views(count))}", 'aB3,"One, two",,7']
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("Chart data.csv", joined(chart))
        archive.writestr("Table data.csv", joined(table))
        archive.writestr("Totals.csv", youtube_totals(count))
    return buffer.getvalue()


def analytics_4(count: int) -> bytes:
    """Return a report of Google Analytics 4: comments, days by number from a start, and the pages as a second table."""
    last = days(count)[-1]
    head = ["# " + "-" * 40, "# Pages and screens: Page title", '# Account: A "good" one', "# " + "-" * 40, "#"]
    span = ["# All Users", f"# Start date: {FIRST:%Y%m%d}", f"# End date: {last:%Y%m%d}"]
    by_day = [f"{number:04d},{seen}" for number, seen in enumerate(views(count))]
    pages = ["Page title,Views,Active users,Views per active user", '"Home, sweet",9000,700,12.857', "(not set),12,3,4"]
    return joined([*head, *span, "Nth day,Views", *by_day, "", *span, *pages]).encode()


def analytics_4_dates(count: int) -> bytes:
    """Return an exploration of Google Analytics 4 by date, with a grand total first."""
    rows = [f"{day:%Y%m%d},{seen},{seen // 2}" for day, seen in zip(days(count), views(count), strict=True)]
    return joined(
        ["# Free form 1", "", "Date,Views,Active users", f",{sum(views(count))},1,Grand total", *rows]
    ).encode()


def universal_analytics(count: int) -> bytes:
    """Universal Analytics: the pages, then the days as an American writes them, thousands grouped, and a total."""
    pages = ["Page,Pageviews,Unique Pageviews", '/,"123,456","99,001"', ',"123,456","99,001"']
    rows = [f'{day.month}/{day.day}/{day:%y},"{seen:,}"' for day, seen in zip(days(count), views(count), strict=True)]
    total = f',"{sum(views(count)):,}"'
    head = ["# " + "-" * 40, "# All Web Site Data", "# Pages", f"# {FIRST:%Y%m%d}-20241231", "# " + "-" * 40, ""]
    return joined([*head, *pages, "", "Day Index,Pageviews", *rows, total]).encode()


def wikimedia_rest(count: int) -> bytes:
    items = [
        {
            "project": "en.wikipedia", "article": "Cat", "granularity": "daily", "timestamp": f"{day:%Y%m%d}00",
            "access": "all-access", "agent": "user", "views": seen,
        }
        for day, seen in zip(days(count), views(count), strict=True)
    ]  # fmt: skip
    return json.dumps({"items": items}).encode()


def pageviews_csv(count: int) -> bytes:
    rows = [f"{day},{seen}" for day, seen in zip(days(count), views(count), strict=True)]
    return joined(['Date,"Cat (animal)"', *rows]).encode()


def pageviews_json(count: int) -> bytes:
    by_day = {str(day): seen for day, seen in zip(days(count), views(count), strict=True)}
    return json.dumps([{"page": "Cat", "color": "rgba(1,2,3,1)", "sum": 9, "daily_average": 1, **by_day}]).encode()


def excel_german(count: int) -> bytes:
    """CSV (Trennzeichen-getrennt): cp1252, semicolons that the first line names, dots in thousands, empty cells."""
    rows = [
        f"{day:%d.%m.%Y};{f'{seen:,}'.replace(',', '.')};;" for day, seen in zip(days(count), views(count), strict=True)
    ]
    return joined(["sep=;", "Tag;Aufrufe für heute;;", *rows, ";;;"], "\r\n").encode("cp1252")


def excel_utf8(count: int) -> bytes:
    rows = [f"{day:%d.%m.%Y};{seen}" for day, seen in zip(days(count), views(count), strict=True)]
    return joined(["DATE;VIEWS", *rows], "\r\n").encode("utf-8-sig")


def excel_unicode_text(count: int) -> bytes:
    """UTF-16 with tabs, newest day first."""
    rows = [f"{day.month}/{day.day}/{day.year}\t{seen}" for day, seen in zip(days(count), views(count), strict=True)]
    return joined(["Date\tViews", *rows[::-1]], "\r\n").encode("utf-16")


# The file's name, what writes it, and the options it needs.
EXPORTS: Mapping[str, tuple[Callable[[int], bytes], dict[str, str]]] = {
    "Totals.csv": (youtube_totals, {}),
    "Table data.csv": (youtube_table, {}),
    "Content 2024-01-01_2024-12-31 My channel.zip": (youtube_zip, {}),
    "Pages_and_screens.csv": (analytics_4, {}),
    "Free_form.csv": (analytics_4_dates, {}),
    "Analytics All Web Site Data Pages.csv": (universal_analytics, {"thousands": ","}),
    "daily.json": (wikimedia_rest, {}),
    "pageviews.csv": (pageviews_csv, {}),
    "pageviews.json": (pageviews_json, {}),
    "Mappe1.csv": (
        excel_german,
        {"date_column": "Tag", "views_column": "Aufrufe für heute", "thousands": ".", "encoding": "cp1252"},
    ),
    "Book1.csv": (excel_utf8, {}),
    "Book1.txt": (excel_unicode_text, {}),
}
