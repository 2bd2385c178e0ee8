"""A page as a browser shows it: sizes, light and dark, and how far its texts stand out."""

from __future__ import annotations

from selenium import webdriver

SIZES = {"a telephone": (360, 740), "a desk": (1280, 900)}
SCHEMES = ("light", "dark")

CONTRASTS = """
const channel = v => { v /= 255; return v <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4; };
const light = c => { const [r, g, b] = c.match(/[0-9.]+/g).map(Number);
  return 0.2126 * channel(r) + 0.7152 * channel(g) + 0.0722 * channel(b); };
const ground = e => { for (; e; e = e.parentElement) { const c = getComputedStyle(e).backgroundColor;
  if (!/, 0\\)$/.test(c) && c !== 'transparent') return c; } return 'rgb(255, 255, 255)'; };
return [...document.querySelectorAll('h1, h2, h3, p, li, th, td, code, figcaption, summary')]
  .filter(e => e.textContent.trim() && e.getClientRects().length)
  .map(e => { const a = light(getComputedStyle(e).color), b = light(ground(e));
    const ratio = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
    return [ratio, e.tagName + ': ' + e.textContent.slice(0, 60)]; });
"""


def show(browser: webdriver.Chrome, page: str, scheme: str, size: tuple[int, int]) -> None:
    width, height = size
    # Not the window, which has a least width of its own.
    browser.execute_cdp_cmd(
        "Emulation.setDeviceMetricsOverride",
        {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 500},
    )
    browser.execute_cdp_cmd(
        "Emulation.setEmulatedMedia", {"features": [{"name": "prefers-color-scheme", "value": scheme}]}
    )
    browser.get(page)
