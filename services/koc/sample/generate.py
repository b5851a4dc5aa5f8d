#!/usr/bin/env python3
"""Writes members.csv and readings.csv of the sample, beside this script.

    python3 services/koc/sample/generate.py

Python 3.11 or later, standard library only. Running it again gives the same bytes: all chance comes from `Chance`, seeded
below, and nothing reads the clock. programme.toml is read, not written.

Nobody in these files exists. Names are a surname and a made-up given name, e-mails end in example.com, telephone numbers are
in 154-0000, a prefix that is not in use, and the check position of every VIN holds a letter that no VIN has there.
"""

import csv
import io
import math
import tomllib
from datetime import datetime, timedelta, timezone
from pathlib import Path

FOLDER = Path(__file__).parent
UTC = timezone.utc
LOCAL = timezone(timedelta(hours=8))


class Chance:
    """splitmix64: the same stream on every Python and machine."""

    def __init__(self, seed: int):
        self.state = seed

    def bits(self) -> int:
        self.state = (self.state + 0x9E3779B97F4A7C15) % 2**64
        z = self.state
        z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9 % 2**64
        z = (z ^ (z >> 27)) * 0x94D049BB133111EB % 2**64
        return z ^ (z >> 31)

    def below(self, n: int) -> int:
        return self.bits() % n

    def unit(self) -> float:
        return self.bits() / 2**64

    def pick(self, items):
        return items[self.below(len(items))]

    def normal(self) -> float:
        """Sum of twelve: close enough to a bell, and exact arithmetic only."""
        return sum(self.unit() for _ in range(12)) - 6


# ---------------------------------------------------------------------------------------------------------------- members

MEMBER_COLUMNS = [
    "Record ID", "First Name", "Last Name", "Email", "Phone Number", "City", "State/Region", "Create Date",
    "Last Modified Date", "Lifecycle Stage", "Marketing contact status", "Vehicle Model", "VIN", "Xiaohongshu Handle",
    "Xiaohongshu Followers", "Douyin Handle", "Douyin Followers", "Notes",
]  # fmt: skip
SURNAMES = "王李张刘陈杨黄赵吴周徐孙马朱胡郭何林高罗郑梁谢宋唐许韩冯邓曹彭曾肖田董潘袁蔡蒋余"
GIVEN_FIRST = "测试样例"
GIVEN_SECOND = "安宁文华明远思齐一凡子木清和雨晨嘉禾知行"
PLACES = [
    ("深圳", "广东省"), ("广州", "广东"), ("上海", "上海市"), ("北京", "北京市"), ("杭州", "浙江省"), ("宁波", "浙江省"),
    ("南京", "江苏省"), ("苏州", "江苏省"), ("成都", "四川省"), ("武汉", "湖北省"), ("西安", "陕西省"), ("济南", "山东省"),
    ("福州", "福建省"), ("重庆", "重庆"), ("乌鲁木齐", "新疆维吾尔自治区"), ("南宁", "广西壮族自治区"), ("呼和浩特", "内蒙古"),
    ("哈尔滨", "黑龙江省"), ("香港", "香港特别行政区"), ("太原", "山西省"),
]  # fmt: skip
MODELS = ["Aurora E5", "Aurora E7", "Aurora X", "Comet S"]
NOTES = ["", "", "", "老车主，喜欢组织活动", "长途自驾\n写过三篇游记", 'said "loves the cockpit", wants early access', "　全角空格　"]
VIN_LETTERS = "0123456789ABCDEFGHJKLMNPRSTUVWXYZ"
CAST_FOLLOWERS = {
    "52000101": ("18.6万", "9.4万"), "52000102": ("152,000", "121,000"), "52000103": ("8,420", "6100"),
    "52000104": ("1.2万", "5300"), "52000105": ("9800", "7,700"), "52000106": ("6900", "1.1万"), "52000107": ("840", "610"),
    "52000108": ("1,260", "930"), "52000109": ("7300", "8200"),
}  # fmt: skip
PLAIN_MEMBERS = 300


def member(number: int, chance: Chance) -> dict:
    city, region = chance.pick(PLACES)
    created = datetime(2023, 1, 1, 8, tzinfo=LOCAL) + timedelta(minutes=chance.below(60 * 24 * 365 * 2))
    changed = created + timedelta(seconds=chance.below(86400 * 300))
    handle = f"sample{number % 100000}"
    red, tok = chance.below(5) < 3, chance.below(5) < 2
    phone = f"1540000{number % 10000:04d}"
    return {
        "Record ID": str(number),
        "First Name": chance.pick(GIVEN_FIRST) + chance.pick(GIVEN_SECOND),
        "Last Name": chance.pick(SURNAMES),
        "Email": f"member{number}@example.com",
        "Phone Number": chance.pick(["", "+86-", "+86 "]) + phone,
        "City": city,
        "State/Region": region,
        "Create Date": created.strftime("%Y-%m-%d %H:%M"),
        "Last Modified Date": changed.strftime("%Y-%m-%d %H:%M:%S"),
        "Lifecycle Stage": chance.pick(["lead", "opportunity", "customer", "evangelist"]),
        "Marketing contact status": "Non-marketing contact" if chance.below(10) == 0 else "Marketing contact",
        "Vehicle Model": chance.pick(MODELS) if chance.below(5) else "",
        # Position 9 is the check digit: 0 to 9 or X. Z is never right.
        "VIN": "LTEST" + "".join(chance.pick(VIN_LETTERS) for _ in range(3)) + "Z"
        + "".join(chance.pick(VIN_LETTERS) for _ in range(8)) if chance.below(5) < 3 else "",
        "Xiaohongshu Handle": handle if red else "",
        "Xiaohongshu Followers": str(int(math.exp(4 + 2 * chance.unit() * chance.unit() * 2))) if red else "",
        "Douyin Handle": handle if tok else "",
        "Douyin Followers": str(int(math.exp(4 + 2 * chance.unit() * chance.unit() * 2))) if tok else "",
        "Notes": chance.pick(NOTES),
    }  # fmt: skip


def members(cast: list[str]) -> list[dict]:
    chance = Chance(2026_01)
    rows = [member(52000200 + n, chance) for n in range(PLAIN_MEMBERS)]
    for identity in cast:
        row = member(int(identity), chance)
        red, tok = CAST_FOLLOWERS[identity]
        row |= {"Lifecycle Stage": "evangelist", "Marketing contact status": "Marketing contact"}
        row |= {"Xiaohongshu Handle": f"sample{identity}", "Xiaohongshu Followers": red}
        row |= {"Douyin Handle": f"sample{identity}", "Douyin Followers": tok, "Vehicle Model": "Aurora E5"}
        rows.insert(chance.below(len(rows)), row)

    # The flaws that real exports have. Each picks plain members of its own, so that counts can be relied on.
    plain = iter([row for row in rows if row["Record ID"] not in cast][7::5])
    extra = []
    for _ in range(10):  # An older edit of the same person, after or before the newer one.
        row = next(plain)
        older = row | {"First Name": "旧名", "Last Modified Date": "2020-01-01 00:00:00", "Vehicle Model": ""}
        extra.append((rows.index(row) + (1 if len(extra) % 2 else 0), older))
    for _ in range(4):  # A newer edit, far down the file.
        extra.append((len(rows), next(plain) | {"Last Modified Date": "2026-03-02 09:30:00", "City": "无锡", "State/Region": "江苏"}))
    row = next(plain)  # The very same line twice.
    extra.append((len(rows), dict(row)))
    for _ in range(5):
        next(plain)["Record ID"] = ""
    for text in ["not-an-address", "sample@", "two@@example.com", "sample.example.com"]:
        next(plain)["Email"] = text
    next(plain)["Last Modified Date"] = "2026-02-30 10:00:00"
    next(plain)["Last Modified Date"] = "31/12/2025"
    for _ in range(2):  # A clock in the future: well formed, refused by the registry.
        next(plain)["Last Modified Date"] = "2031-01-01 00:00:00"
    for text in ["1.2万", "３千", "12,345"]:
        next(plain).update({"Xiaohongshu Handle": "　sample　", "Xiaohongshu Followers": text})
    next(plain).update({"Douyin Handle": "sample", "Douyin Followers": "约三千"})
    next(plain).update({"Xiaohongshu Handle": "", "Xiaohongshu Followers": "541"})  # Followers of nobody.
    next(plain)["City"] = "　宁波　"
    next(plain).update({"First Name": "Sample", "Last Name": "Person", "City": "N/A", "State/Region": "CN-SH"})
    next(plain).update({"Record ID": "", "Email": "not-an-address", "Last Modified Date": ""})  # All at once.
    for place, row in sorted(extra, key=lambda item: -item[0]):
        rows.insert(place, row)
    return rows


# --------------------------------------------------------------------------------------------------------------- readings

READING_COLUMNS = ["member", "task", "deliverable", "platform", "metric", "counter", "margin_cny", "observed_at", "paid"]
# Mean and spread of the return on investment of a member's outputs, by quarter.
RETURNS = {
    "52000101": {"2026Q1": (0.95, 0.3), "2026Q2": (0.95, 0.3)},
    "52000102": {"2026Q1": (-0.05, 0.3), "2026Q2": (-0.05, 0.3)},
    "52000103": {"2026Q1": (-0.05, 0.3), "2026Q2": (0.05, 0.3)},
    "52000104": {"2026Q1": (0.0, 0.3), "2026Q2": (0.05, 0.3)},
    "52000105": {"2026Q1": (-1.0, 0.0), "2026Q2": (-0.95, 0.05)},
    "52000106": {"2026Q1": (0.0, 0.3), "2026Q2": (0.9, 0.3)},
    "52000107": {"2026Q1": (0.4, 0.2), "2026Q2": (0.4, 0.2)},
    "52000108": {"2026Q1": (-0.05, 0.3), "2026Q2": (-0.05, 0.3)},
}
# The two briefs of a quarter spread in opposite ways, so that a quarter's return is its mean whatever the seed.
SIGN = {"ownership": 1, "roadtrip": -1}
VIEWS_PER_YUAN = {"APEX": 17, "CORE": 9, "BASE": 5.5}
ENGAGEMENT = {"LIKES": 0.042, "COMMENTS": 0.0055, "SHARES": 0.0046, "SAVES": 0.013, "FOLLOWS": 0.0021}
# Time in which half of an output's thirty-day views arrive, and when its counters are read.
HALF_LIFE_DAYS = {"DOUYIN": 2, "XIAOHONGSHU": 7}
READ_AFTER_DAYS = [1, 3, 10, 30]
VIRAL = ("52000106", "2026Q2-roadtrip", "video")
VIRAL_ORDERS = 40
BURST_AT = datetime(2026, 5, 18, 12, tzinfo=UTC)
HOURLY_FROM, HOURLY_TO = datetime(2026, 5, 16, tzinfo=UTC), datetime(2026, 5, 21, tzinfo=UTC)
# Times the usual views of an hour, from the first hour of the burst on.
BURST = [3, 11, 32, 60, 88, 104, 110, 98, 82, 66, 54, 43, 35, 28, 23, 18, 15, 12, 10, 8, 7, 6, 5, 4, 4, 3, 3, 2, 2, 2]


def grown(age_days: float, half_life_days: float) -> float:
    """Share of the thirty-day total that has arrived: 1 - 2^(-age / half-life), scaled to 1 at 30 days."""
    arrived = lambda days: 1 - 2 ** (-days / half_life_days)  # noqa: E731
    return arrived(min(age_days, 30)) / arrived(30)


def instant(time: datetime) -> str:
    return time.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def viral_views(live: datetime, chance: Chance) -> list[int]:
    """Cumulative views at the end of each hour of thirty days."""
    total, views = 0, []
    for hour in range(30 * 24):
        now = live + timedelta(hours=hour)
        rate = 60 * 2 ** (-hour / 400) + 320 * math.exp(-hour / 18)
        rate *= 1 + 0.15 * math.sin(2 * math.pi * (now.hour - 6) / 24)
        since = int((now - BURST_AT) / timedelta(hours=1))
        if 0 <= since < len(BURST):
            rate *= BURST[since]
        total += max(0, round(rate + 1.4 * math.sqrt(rate) * chance.normal()))
        views.append(total)
    return views


def readings(programme: dict) -> list[list[str]]:
    chance = Chance(2026_02)
    margin = float(programme["value_model"]["margin_per_order_cny"])
    tasks = {task["key"]: task for task in programme["tasks"]}
    briefs = {brief["key"]: brief for brief in programme["briefs"]}
    rows: list[tuple[datetime, list[str]]] = []

    def read(key, platform, metric, counter, at, paid=False):
        value = f"{counter * margin:.2f}" if metric == "ORDERS" else ""
        flag = "true" if paid else "false"
        rows.append((at, [*key, platform, metric, str(counter), value, instant(at), flag]))

    for person in programme["cast"]:
        cost = float(person["cost_per_assignment_cny"])
        lucks: dict[tuple[str, str], float] = {}
        for delivery in person["deliveries"]:
            task = tasks[delivery["task"]]
            mean, spread = RETURNS[person["external_id"]][task["quarter"]]
            for part in briefs[task["brief"]]["deliverables"]:
                if part["key"] not in delivery["delivered"]:
                    continue
                key = (person["external_id"], task["key"], part["key"])
                live = datetime.fromisoformat(delivery["live_at"])
                half_life = HALF_LIFE_DAYS[part["platform"]]
                share = cost * part["weight"] / 100
                luck = lucks.setdefault((task["quarter"], part["key"]), chance.normal()) * SIGN[task["brief"]]
                orders = max(0, round(share * (1 + mean + spread * luck) / margin))
                views = round(share * VIEWS_PER_YUAN[person["tier"]] * math.exp(0.25 * chance.normal()))
                rates = {metric: rate * math.exp(0.2 * chance.normal()) for metric, rate in ENGAGEMENT.items()}
                hourly = viral_views(live, chance) if key == VIRAL else None
                if hourly:
                    orders = VIRAL_ORDERS

                def counters(at):
                    age = (at - live) / timedelta(days=1)
                    share_now = grown(age, half_life)
                    seen = round(views * share_now)
                    if hourly:
                        seen = hourly[min(len(hourly), round(age * 24)) - 1]
                        share_now = seen / hourly[-1]
                    yield "VIEWS", seen
                    yield from ((metric, round(rate * seen)) for metric, rate in rates.items())
                    yield "ORDERS", round(orders * share_now)

                read(key, part["platform"], "VIEWS", 0, live)
                for days in READ_AFTER_DAYS:
                    at = live + timedelta(days=days)
                    for metric, counter in counters(at):
                        read(key, part["platform"], metric, counter, at)
                if hourly:
                    at = HOURLY_FROM
                    while at <= HOURLY_TO:
                        for metric, counter in counters(at):
                            if metric in ("VIEWS", "LIKES", "COMMENTS", "SHARES"):
                                read(key, part["platform"], metric, counter, at)
                        at += timedelta(hours=1)
                    # The boost that the burst earned: its views are a counter of their own.
                    for step in range(1, 9):
                        at = datetime(2026, 5, 20, tzinfo=UTC) + timedelta(hours=6 * step)
                        read(key, part["platform"], "VIEWS", round(21000 * step / 8), at, paid=True)

    rows.sort(key=lambda row: (row[0], row[1]))
    return with_flaws([row for _, row in rows], chance)


def with_flaws(rows: list[list[str]], chance: Chance) -> list[list[str]]:
    # The platform takes back some views it had counted: the next reading is lower, and counting goes on from there.
    output = ["52000103", "2026Q1-ownership", "article", "XIAOHONGSHU", "VIEWS"]
    places = [place for place, row in enumerate(rows) if row[:5] == output]
    before, after = rows[places[3]], rows[places[4]]
    lower = list(before)
    lower[5], lower[7] = str(int(before[5]) * 96 // 100), before[7].replace("-22T", "-24T")
    assert lower[7] != before[7] and int(lower[5]) < int(before[5])
    after[5] = str(int(after[5]) - (int(before[5]) - int(lower[5])))
    place = next(place for place, row in enumerate(rows) if row[7] > lower[7])
    rows.insert(place, lower)
    # Late: a dozen readings arrive after the next one of the same counter. Not those of the burst, which is read as it happens.
    late = 0
    while late < 12:
        place = chance.below(len(rows))
        same = [other for other, row in enumerate(rows) if row[:5] == rows[place][:5] and row[7] > rows[place][7]]
        if tuple(rows[place][:3]) != VIRAL and same:
            rows.insert(same[0] + chance.below(3), rows.pop(place))
            late += 1
    # Repeated: ten arrive twice, some at once, some later.
    for _ in range(10):
        place = chance.below(len(rows) - 300)
        rows.insert(place + chance.pick([1, 1, 90]), list(rows[place]))
    return rows


def text(columns: list[str], rows: list[list[str]], line_end: str, mark: str = "") -> bytes:
    out = io.StringIO(newline="")
    writer = csv.writer(out, lineterminator=line_end)
    writer.writerow(columns)
    writer.writerows(rows)
    return (mark + out.getvalue()).encode()


def main() -> None:
    programme = tomllib.loads((FOLDER / "programme.toml").read_text(encoding="utf-8"))
    people = members([person["external_id"] for person in programme["cast"]])
    lines = [[row[column] for column in MEMBER_COLUMNS] for row in people]
    (FOLDER / "members.csv").write_bytes(text(MEMBER_COLUMNS, lines, "\r\n", mark="\ufeff"))
    (FOLDER / "readings.csv").write_bytes(text(READING_COLUMNS, readings(programme), "\n"))


if __name__ == "__main__":
    main()
