"""CPU time per event of every row as bars, one group per workload: an SVG without scripts or embedded fonts."""

import re
from html import escape

from report import CPU, median

WIDTH, LABEL, BAR, GAP = 900, 400, 18, 6
OURS, FLOOR, OTHER = "#1f77b4", "#888888", "#d08a3c"


def plain(title):
    return re.sub(r"[*`]", "", title)


def svg(rows, results):
    parts, y = [], 10
    for workload in dict.fromkeys(workload for workload, _ in rows):
        values = [(peer, median(results[workload.name, peer.name], *CPU)) for each, peer in rows if each is workload]
        values = [(peer, value) for peer, value in values if value is not None]
        most = max((value for _, value in values), default=1) or 1
        y += 22
        parts.append(f'<text x="10" y="{y - 6}" font-weight="bold">{escape(workload.name)}: {escape(workload.title)}</text>')
        for peer, value in values:
            length = (WIDTH - LABEL - 90) * value / most
            colour = FLOOR if peer.name == "floor" else OURS if "Runnel" in peer.title else OTHER
            parts.append(f'<text x="{LABEL - 8}" y="{y + 13}" text-anchor="end">{escape(plain(peer.title))}</text>'
                         f'<rect x="{LABEL}" y="{y}" width="{length:.1f}" height="{BAR}" fill="{colour}"/>'
                         f'<text x="{LABEL + length + 6:.1f}" y="{y + 13}">{value:.1f}</text>')
            y += BAR + GAP
        y += 10
    head = (f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{y + 20}" '
            f'font-family="sans-serif" font-size="12">'
            f'<rect width="100%" height="100%" fill="white"/>'
            f'<text x="10" y="16">CPU microseconds per event of the process that holds the connections</text>')
    return head + "".join(parts) + "</svg>\n"
