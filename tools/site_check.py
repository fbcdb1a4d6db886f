"""Looks at pages of notebooks in headless Chromium, light and dark, narrow and wide: axe-core finds nothing, no page is wider than
375 pixels, nothing is loaded from elsewhere. See tools/site.sh.
"""
import argparse
import pathlib
import sys

from playwright.sync_api import sync_playwright

parser = argparse.ArgumentParser()
for name in ("--site", "--chromium", "--axe", "--pictures"):
    parser.add_argument(name, required=True)
options = parser.parse_args()
pictures = pathlib.Path(options.pictures)
pictures.mkdir(parents=True, exist_ok=True)
pages = sorted(pathlib.Path(options.site).resolve().glob("*.html"))
problems = 0


def problem(text):
    """Says what is wrong at once: many pages take long."""
    global problems
    problems += 1
    print("site:", text, file=sys.stderr, flush=True)


with sync_playwright() as p:
    browser = p.chromium.launch(executable_path=options.chromium, args=["--no-sandbox"])
    for scheme in ("light", "dark"):
        for width in (375, 1280):
            context = browser.new_context(color_scheme=scheme, viewport={"width": width, "height": 800}, bypass_csp=True)
            page = context.new_page()
            page.on("request", lambda r: r.url.startswith(("file:", "data:")) or problem(f"loads {r.url}"))
            for file in pages:
                page.goto(file.as_uri())
                where = f"{file.name}, {scheme}, {width} px"
                wide = page.evaluate("document.documentElement.scrollWidth")
                if wide > width:
                    problem(f"{where}: {wide} px wide")
                page.add_script_tag(path=options.axe)
                found = page.evaluate("axe.run({runOnly: ['wcag2a', 'wcag2aa', 'wcag21a', 'wcag21aa', 'wcag22aa', 'best-practice']})")
                for v in found["violations"]:
                    problem(f"{where}: axe {v['id']} ({v['impact']}): {v['help']}: {v['nodes'][0]['html'][:160]}")
                page.screenshot(path=pictures / f"{file.stem}-{scheme}-{width}.png", full_page=True)
            context.close()
    browser.close()
print(f"site: {len(pages)} pages, {problems} problems")
sys.exit(problems > 0)
