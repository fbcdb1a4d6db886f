"""Looks at "elastic ui" in headless Chromium: axe-core finds nothing, no page is wider than 375 pixels, nothing is loaded from elsewhere,
all is reached by the keyboard, pictures are there, curves tell their values to a pointer and to keys, and grow while a run goes on. See tools/ui.sh.
"""
import argparse
import csv
import io
import json
import pathlib
import subprocess
import sys
import time

from playwright.sync_api import sync_playwright

parser = argparse.ArgumentParser()
for name in ("--elastic", "--dir", "--chromium", "--axe", "--pictures"):
    parser.add_argument(name, required=True)
options = parser.parse_args()
pictures = pathlib.Path(options.pictures)
pictures.mkdir(parents=True, exist_ok=True)
problems = []
server = subprocess.Popen([options.elastic, "ui", "--dir", options.dir, "--addr", "127.0.0.1:0"], stdout=subprocess.PIPE, text=True)
address = server.stdout.readline().strip()
base = address.split("/?")[0]
runs = json.loads(subprocess.run([options.elastic, "runs", "ls", "--dir", options.dir, "--json", "--sort", "id"], check=True, capture_output=True, text=True).stdout)
ids = [r["id"] for r in runs]
pages = {"list": "/", "run": "/run/" + ids[0], "span": "/run/ner-span", "classify": "/run/classify", "compare": "/compare?" + "&".join("run=" + i for i in ids[:3]), "problem": "/?where=nonsense"}
try:
    with sync_playwright() as p:
        browser = p.chromium.launch(executable_path=options.chromium, args=["--no-sandbox"])
        for scheme in ("light", "dark"):
            for width in (375, 1280):
                context = browser.new_context(color_scheme=scheme, viewport={"width": width, "height": 800}, bypass_csp=True)
                page = context.new_page()
                page.on("request", lambda r: r.url.startswith((base, "data:")) or problems.append(f"loads {r.url}"))
                page.on("pageerror", lambda e: problems.append(f"script: {e}"))
                page.goto(address)
                for name, path in pages.items():
                    page.goto(base + path)
                    for box in page.locator("#pictures img, #pictures iframe").all():
                        box.scroll_into_view_if_needed()
                    where = f"{name}, {scheme}, {width} px"
                    wide = page.evaluate("document.documentElement.scrollWidth")
                    if wide > width:
                        problems.append(f"{where}: {wide} px wide")
                    page.add_script_tag(path=options.axe)
                    found = page.evaluate("axe.run({runOnly: ['wcag2a', 'wcag2aa', 'wcag21a', 'wcag21aa', 'wcag22aa', 'best-practice']})")
                    for v in found["violations"]:
                        problems.append(f"{where}: axe {v['id']} ({v['impact']}): {v['help']}: {v['nodes'][0]['html'][:160]}")
                    page.screenshot(path=pictures / f"{name}-{scheme}-{width}.png", full_page=True)
                context.close()
        # The policy is in force here. Everything by the keyboard: choose two runs and compare them.
        context = browser.new_context()
        page = context.new_page()
        page.on("console", lambda m: m.type == "error" and problems.append(f"console: {m.text}"))
        page.goto(address)
        chosen = 0
        for _ in range(200):
            page.keyboard.press("Tab")
            what = page.evaluate("[document.activeElement.tagName, document.activeElement.type || '', document.activeElement.textContent]")
            if what[1] == "checkbox" and chosen < 2:
                page.keyboard.press("Space")
                chosen += 1
            if what[0] == "BUTTON" and "Compare" in what[2]:
                page.keyboard.press("Enter")
                page.wait_for_url("**/compare?*")
                break
        if "Last values" not in page.content():
            problems.append("two runs could not be compared by the keyboard")
        # What must be there to be seen.
        for path, wanted in (("/", ["#parallel svg"]), (pages["compare"], ["figure[aria-label='Parallel coordinates'] svg"]),
                             ("/run/classify", ["[aria-label='Confusion matrix'] table"]),
                             ("/run/ner-span", ["#learned svg", "#pictures img[src*=attention-1]", "#pictures img[src*=attention-2]", "#pictures iframe[sandbox=''][src*=heads]"])):
            page.goto(base + path)
            for selector in wanted:
                if page.locator(selector).count() == 0:
                    problems.append(f"{path} has no {selector}")
        for image in page.locator("#pictures img").all():
            image.scroll_into_view_if_needed()
            page.wait_for_function("image => image.complete", arg=image.element_handle())
            if not image.evaluate("image => image.naturalWidth") or "What heads attend to" not in (image.get_attribute("alt") or ""):
                problems.append(f"{image.get_attribute('src')} is not seen")
        # Values by pointer and by keys are those that the store has.
        page.goto(base + pages["compare"])
        points = subprocess.run([options.elastic, "runs", "export", "points", "--dir", options.dir, *ids[:3]], check=True, capture_output=True, text=True).stdout
        logged = {(r["run"], int(r["step"])): float(r["value"]) for r in csv.DictReader(io.StringIO(points)) if r["metric"] == "train/loss"}
        figure = page.locator("figure[aria-label='train/loss']")
        box = figure.locator("svg").bounding_box()
        page.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)

        def told():
            lines = figure.locator(".values").inner_text().splitlines()
            step = int(lines[0].removeprefix("step "))
            for run in ids[:3]:
                line = next((l for l in lines if l.startswith(run + " ")), "")
                at = int(line.split("(step ")[1][:-1]) if "(step " in line else step
                if not line or abs(float(line.split()[1]) - logged[run, at]) > 1e-4 * abs(logged[run, at]):
                    problems.append(f"{run} at step {at} is told as {line!r}, logged as {logged.get((run, at))}")
            return step

        pointed = told()
        page.screenshot(path=pictures / "values.png")
        slider = figure.locator("input[type=range]")
        slider.focus()
        page.keyboard.press("ArrowRight")
        moved = told()
        page.keyboard.press("Home")
        if not told() == 1 < pointed < moved or "step 1: " not in (slider.get_attribute("aria-valuetext") or ""):
            problems.append(f"pointer and keys lead to steps {pointed}, {moved}, {told()}")
        # A run that goes on.
        page = context.new_page()
        folder = pathlib.Path(options.dir) / "live"
        writer = subprocess.Popen([options.elastic, "train", "ner", "--model", "scratch", "--limit", "96", "--max-updates", "400", "--run", str(folder)],
                                  stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            points = lambda: int(page.locator("#metrics tr", has_text="train/loss").first.locator("td").first.inner_text())
            for _ in range(600):
                if page.goto(base + "/run/live").status == 200 and page.locator("#metrics tr", has_text="train/loss").count():
                    break
                time.sleep(0.2)
            first = points()
            slider = page.locator("figure[aria-label='train/loss'] input[type=range]")
            slider.focus()
            page.keyboard.press("Home")
            for _ in range(100):
                time.sleep(0.2)
                if points() > first:
                    break
            else:
                problems.append("the page of a run that goes on stands still")
            if "step 1" != page.locator("figure[aria-label='train/loss'] .values").inner_text().splitlines()[0] or not slider.evaluate("s => s === document.activeElement"):
                problems.append("what was chosen of a curve is lost when it grows")
            print(f"live: {first} points, then {points()}; {page.locator('#state').inner_text()}")
            page.screenshot(path=pictures / "live.png", full_page=True)
        finally:
            writer.kill()
            writer.wait()
        page.wait_for_selector(".status.killed", timeout=20000)
        browser.close()
finally:
    server.terminate()
    server.wait()
if problems:
    sys.exit("\n".join(sorted(set(problems))))
print(f"ui: {len(pages)} pages, light and dark, 375 and 1280 px: axe finds nothing, nothing is loaded from elsewhere")
